//! Message text to structure: header fields, ENVELOPE and BODYSTRUCTURE facts.
