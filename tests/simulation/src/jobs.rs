//! What a front-end does for its client: a change goes to the home, here or there, and is tried again under the same
//! command id; a read waits until this node may show its snapshot.

use bytes::Bytes;
use replica::{Event, MayRead, Serving};
use vocab::{AccountId, Boot, SubmitError};

use crate::Control;
use crate::node::chunk;
use crate::outbound::RELAY;
use crate::peers::CALL_WAIT_MS;
use crate::spread::FAN_OUT;
use crate::vocabulary::{After, Answer, Done, Happening, Inner, Job, JobKind, Ms, Waiter, Work, index_of};
use crate::world::World;

/// How long a change is tried, and a read waits (ms); shorter than in the engine, so that a history sees more ends.
const JOB_WAIT_MS: Ms = 4_500;
/// Pause before the next try (ms).
const RETRY_MS: Ms = 20;

const NOT_SERVING: SubmitError = SubmitError::Unavailable("not serving");

impl World {
    pub(crate) fn begin_job(&mut self, n: usize, client: usize, serial: u64, kind: JobKind) {
        let deadline = self.now + JOB_WAIT_MS;
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        process.next_job += 1;
        let id = process.next_job;
        process.jobs.insert(id, Job { client, serial, deadline, attempt: 0, kind, spreading: Vec::new() });
        self.to(n, 0, Inner::Step(id));
    }

    pub(crate) fn step(&mut self, n: usize, id: u64) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(job) = process.jobs.get_mut(&id) else { return };
        job.attempt += 1;
        let job_client = job.client;
        let again = job.attempt > 1 && job_client != FAN_OUT && self.control == Control::RetriesAsNew;
        let (attempt, mut kind) = (job.attempt, job.kind.clone());
        if again && let JobKind::Submit(Work::Delivery { accept, .. }) = &mut kind {
            *accept = process.command_id(n);
            if let Some(job) = process.jobs.get_mut(&id) {
                job.kind = kind.clone();
            }
        }
        // What a record promises is durable wherever a home may be.
        let fans_out = job_client == FAN_OUT;
        match kind {
            JobKind::Submit(Work::Delivery { body, inline: false, .. }) if !fans_out => {
                self.spread(n, id, attempt, &body)
            }
            JobKind::Submit(work) => self.submit(n, id, attempt, work),
            JobKind::Read { account, entry_asked } => self.try_read(n, id, account, entry_asked),
        }
    }

    fn submit(&mut self, n: usize, id: u64, attempt: u32, work: Work) {
        let job = self.nodes[n].process.as_ref().and_then(|p| p.jobs.get(&id));
        let fans_out = job.is_some_and(|job| job.client == FAN_OUT);
        let work = if fans_out { work } else { self.with_record(n, work) };
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        let boot = process.boot;
        let Some(home) = process.replica.home(work.shard()).map(index_of) else {
            return self.result(n, id, attempt, Err(NOT_SERVING));
        };
        if home == n {
            return self.order(n, work, Waiter::Job { job: id, attempt });
        }
        if !self.can_call(n, home) {
            return self.result(n, id, attempt, Err(SubmitError::Unavailable("the other node cannot be reached")));
        }
        self.coverage.forwarded += 1;
        if self.net.is_open(n, home) {
            let delay = self.delay() + 1;
            self.to(home, delay, Inner::Forwarded { from: n, boot, job: id, attempt, work });
        }
        let lost = Err(SubmitError::Unknown("the other node did not answer"));
        self.to(n, CALL_WAIT_MS, Inner::Result { job: id, attempt, answer: lost });
    }

    pub(crate) fn forwarded(&mut self, n: usize, waiter: Waiter, work: Work) {
        let home = self.nodes[n].process.as_ref().and_then(|p| p.replica.home(work.shard()));
        if home.map(index_of) == Some(n) {
            self.order(n, work, waiter);
        } else {
            self.reply(n, waiter, Err(NOT_SERVING));
        }
    }

    /// Makes a large body durable here and on every node that will have to hold the change naming it.
    fn spread(&mut self, n: usize, id: u64, attempt: u32, body: &Bytes) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let mut holders: Vec<usize> = vec![n];
        let record = process.replica.record();
        holders.extend(record.map(|r| r.in_sync.clone()).unwrap_or_default().into_iter().map(index_of));
        holders.extend(process.replica.body_peers().into_iter().map(index_of));
        holders.sort_unstable();
        holders.dedup();
        let boot = process.boot;
        if let Some(job) = process.jobs.get_mut(&id) {
            job.spreading.clone_from(&holders);
        }
        for holder in holders {
            if holder == n {
                self.write(n, vec![chunk(body.clone())], After::Spread { job: id, attempt });
            } else if !self.can_call(n, holder) {
                return self.result(n, id, attempt, Err(SubmitError::Unavailable("the other node cannot be reached")));
            } else if self.net.is_open(n, holder) {
                let delay = self.delay() + 1;
                self.to(holder, delay, Inner::Keep { from: n, boot, job: id, attempt, body: body.clone() });
            }
        }
        let lost = Err(SubmitError::Unavailable("a body could not be spread"));
        self.to(n, CALL_WAIT_MS, Inner::Result { job: id, attempt, answer: lost });
    }

    pub(crate) fn kept(&mut self, by: usize, caller: usize, boot: Boot, job: u64, attempt: u32) {
        self.call_back(by, caller, boot, Inner::Kept { job, attempt, by });
    }

    pub(crate) fn body_kept(&mut self, n: usize, id: u64, attempt: u32, by: usize) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(job) = process.jobs.get_mut(&id).filter(|j| j.attempt == attempt) else { return };
        job.spreading.retain(|holder| *holder != by);
        if job.spreading.is_empty()
            && let JobKind::Submit(work) = job.kind.clone()
        {
            // The wait for the spreading must not end the wait for the commit.
            job.attempt += 1;
            let attempt = job.attempt;
            self.submit(n, id, attempt, work);
        }
    }

    /// Answers whoever waits for a token.
    pub(crate) fn answer(&mut self, n: usize, token: u64, answer: Answer) {
        let waiting = self.nodes[n].process.as_mut().and_then(|p| p.waiting.remove(&token));
        if let Some((work, waiter)) = waiting {
            if answer.is_ok() {
                self.accepted_here(n, &work);
            }
            self.reply(n, waiter, answer);
        }
    }

    pub(crate) fn reply(&mut self, n: usize, waiter: Waiter, answer: Answer) {
        match waiter {
            Waiter::Job { job, attempt } => self.to(n, 0, Inner::Result { job, attempt, answer }),
            Waiter::Remote { node, boot, job, attempt } => {
                if !self.rng.percent(self.plan.lost_answers) {
                    self.call_back(n, node, boot, Inner::Result { job, attempt, answer });
                }
            }
        }
    }

    pub(crate) fn result(&mut self, n: usize, id: u64, attempt: u32, answer: Answer) {
        let now = self.now;
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(job) = process.jobs.get_mut(&id).filter(|j| j.attempt == attempt) else { return };
        if let JobKind::Read { .. } = job.kind {
            return match answer {
                Ok(_) => self.step(n, id),
                Err(error) => self.finish(n, id, Err(error)),
            };
        }
        if answer.is_err() && now + RETRY_MS < job.deadline {
            let delay = RETRY_MS + self.rng.range(0, 30);
            return self.to(n, delay, Inner::Step(id));
        }
        self.finish(n, id, answer);
    }

    fn finish(&mut self, n: usize, id: u64, answer: Answer) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(job) = process.jobs.remove(&id) else { return };
        if let JobKind::Submit(work) = &job.kind
            && let Some(command) = work.id().filter(|_| job.client != FAN_OUT)
        {
            process.settle(n, command, &answer);
        }
        if job.client == FAN_OUT {
            return self.fan_out_told(n, job.serial, &answer);
        }
        if job.client == RELAY {
            return self.relay_told(n, job.serial, &answer);
        }
        self.at(1, Happening::Told { client: job.client, serial: job.serial, answer: Some(answer) });
    }

    /// Snapshot first, then ask whether its version may be read (DESIGN 5).
    fn try_read(&mut self, n: usize, id: u64, account: AccountId, entry_asked: bool) {
        let now = self.clock(n);
        let head = self.nodes[n].disk.image.head(account);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(job) = process.jobs.get_mut(&id) else { return };
        let verdict = process.replica.may_read(account, head.version, now);
        let (behind, deadline) = (process.replica.is_behind(account), job.deadline);
        if verdict != MayRead::Yes {
            self.coverage.merge_waits += u64::from(verdict == MayRead::Merging);
            if behind {
                self.to(n, 0, Inner::Event(Event::Wanted(account)));
            }
            if self.now >= deadline {
                return self.finish(n, id, Err(NOT_SERVING));
            }
            return self.to(n, RETRY_MS, Inner::Step(id));
        }
        let stamp = process.replica.stamp(account);
        // At a backup too: what its session is shown counts as shown by this side (X16).
        let due = stamp.entry_due(&head) && self.control != Control::MarksNothingServed;
        if due && !entry_asked {
            job.kind = JobKind::Read { account, entry_asked: true };
            let attempt = job.attempt;
            return self.submit(n, id, attempt, Work::Enter(account));
        }
        if process.replica.serving(now) == Serving::Backup {
            self.coverage.backup_reads += 1;
        }
        let client = job.client;
        self.show(n, client, account);
        self.finish(n, id, Ok(Done::Entered));
    }
}
