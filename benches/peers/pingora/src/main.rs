//! A reverse proxy of Pingora as its guide builds one: `pingora-counterpart THREADS ADDRESS MEMBER...`.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Site(Arc<LoadBalancer<RoundRobin>>);

#[async_trait]
impl ProxyHttp for Site {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let member = self.0.select(b"", 16).expect("members are never taken out");
        Ok(Box::new(HttpPeer::new(member, false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().unwrap_or_else(|| panic!("{name} is missing"));
    let (threads, address) = (next("THREADS"), next("ADDRESS"));
    let members = LoadBalancer::try_from_iter(arguments).expect("addresses of members");
    let threads = threads.parse().expect("THREADS is a number");
    // It ends when it is asked to.
    let (grace_period_seconds, graceful_shutdown_timeout_seconds) = (Some(0), Some(0));
    let configuration = ServerConf {
        threads,
        grace_period_seconds,
        graceful_shutdown_timeout_seconds,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Site(Arc::new(members)));
    proxy.add_tcp(&address);
    server.add_service(proxy);
    server.run_forever();
}
