//! A DNS server that knows a few SRV records.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::NameServers;

/// The server. Dropping it ends it.
pub(super) struct DnsServer {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Name, target, port.
type Service<'a> = (&'a str, &'a str, u16);

impl DnsServer {
    pub(super) async fn start(services: &[Service<'_>]) -> Self {
        let mut records: HashMap<Name, Vec<RData>> = HashMap::new();
        for (name, target, port) in services {
            let data = RData::SRV(SRV::new(0, 0, *port, target.parse().unwrap()));
            records.entry(name.parse().unwrap()).or_default().push(data);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = serve(socket, Arc::new(records));
        tasks.spawn(stop.clone().run_until_cancelled_owned(serving));
        Self {
            address,
            stop,
            tasks,
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn name_servers(&self) -> NameServers {
        NameServers::At(self.address)
    }

    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(socket: UdpSocket, records: Arc<HashMap<Name, Vec<RData>>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..len]).unwrap();
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.add_query(query.clone());
        match records.get(&query.name().to_lowercase()) {
            Some(found) => {
                let record =
                    |data: &RData| Record::from_rdata(query.name().clone(), 60, data.clone());
                answer.add_answers(found.iter().map(record));
            }
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        let bytes = answer.to_vec().unwrap();
        socket.send_to(&bytes, from).await.unwrap();
    }
}
