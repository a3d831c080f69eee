//! Tests against a DNS server of our own on loopback.

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

fn answers(name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>) {
    let mx = |preference, host: &str| RData::MX(MX::new(preference, Name::from_ascii(host).expect("name")));
    match (name, kind) {
        ("two.example.", RecordType::MX) => {
            (ResponseCode::NoError, vec![mx(20, "backup.example."), mx(10, "first.example.")])
        }
        ("null.example.", RecordType::MX) => (ResponseCode::NoError, vec![mx(0, ".")]),
        ("first.example.", RecordType::A) => (ResponseCode::NoError, vec![RData::A(A::new(192, 0, 2, 1))]),
        ("first.example." | "bare.example.", _) => (ResponseCode::NoError, vec![]),
        ("broken.example.", _) => (ResponseCode::ServFail, vec![]),
        _ => (ResponseCode::NXDomain, vec![]),
    }
}

/// A DNS server on loopback for the length of one test.
async fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).expect("a query");
            let question = query.queries[0].clone();
            let name = question.name().to_ascii().to_ascii_lowercase();
            let (code, data) = answers(&name, question.query_type());
            let mut reply = Message::response(query.id, query.op_code);
            reply.metadata.response_code = code;
            reply.metadata.recursion_available = true;
            reply.add_query(question.clone());
            for rdata in data {
                reply.add_answer(Record::from_rdata(question.name().clone(), 60, rdata));
            }
            socket.send_to(&reply.to_vec().expect("reply"), from).await.expect("send");
        }
    });
    address
}

#[tokio::test]
async fn mail_hosts_by_preference_null_mx_and_no_mx() {
    let resolver = DnsResolver::new(&[server().await]);
    let hosts = async |name: &str| resolver.mail_hosts(&Domain::parse(name).expect("domain")).await;
    assert_eq!(hosts("two.example").await, Ok(vec!["first.example".into(), "backup.example".into()]));
    assert_eq!(hosts("null.example").await, Err(ResolveError::NullMx));
    assert_eq!(hosts("bare.example").await, Ok(vec!["bare.example".into()]));
    assert_eq!(hosts("nothing.example").await, Err(ResolveError::NoSuchName));
    assert!(matches!(hosts("broken.example").await, Err(ResolveError::Temporary(_))));
    assert_eq!(hosts("[192.0.2.9]").await, Ok(vec!["192.0.2.9".into()]));
    assert_eq!(resolver.addresses("first.example").await, Ok(vec![IpAddr::from([192, 0, 2, 1])]));
    assert_eq!(resolver.addresses("192.0.2.9").await, Ok(vec![IpAddr::from([192, 0, 2, 9])]));
    assert_eq!(resolver.addresses("bare.example").await, Err(ResolveError::NoSuchName));
}
