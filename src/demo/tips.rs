//! The commands to try, as they can be copied from a terminal of any width.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A command, and what it shows.
#[derive(Clone, Debug)]
pub struct Tip {
    /// What it shows.
    pub says: &'static str,
    /// The command, an address for a browser, or a file.
    pub command: String,
}

/// An address that reaches what listens on `address` from this machine.
#[must_use]
pub fn reach(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// What to try with the site at `public`, the admin pages at `admin` and the file of Balancers.
#[must_use]
pub fn tips(public: SocketAddr, admin: SocketAddr, file: &Path) -> Vec<Tip> {
    let (public, admin) = (reach(public), reach(admin));
    let (ip, port) = (shown(public.ip()), public.port());
    let site = |option: &str, path: &str| {
        format!(
            "curl -i --resolve www.site.com:{port}:{ip} {option}http://www.site.com:{port}{path}"
        )
    };
    let tip = |says, command| Tip { says, command };
    let mut tips = vec![
        tip("a new session: the faster member gets more of them", site("", "/")),
        tip("the member's own address and cookie domain are reversed", site("", "/login")),
        tip("a session of app2", site("-H 'Cookie: sessionid=x!app2' ", "/")),
        tip("a static server sees /media/a.png", site("", "/static/a.png")),
        tip("what is being served, as JSON", format!("curl http://{admin}/table")),
        tip("what was counted, for Prometheus", format!("curl http://{admin}/metrics")),
    ];
    if public.ip().is_loopback() {
        tips.push(tip("for a browser", format!("http://localhost:{port}/")));
    }
    tips.push(tip("the Balancers, to be edited while it runs", file.display().to_string()));
    tips
}

/// How to try it by TLS, at `public`, trusting the authority in this file.
#[must_use]
pub fn by_tls(public: SocketAddr, authority: &Path) -> Tip {
    let public = reach(public);
    let (ip, port) = (shown(public.ip()), public.port());
    let command = format!(
        "curl -i --cacert {} --resolve www.site.com:{port}:{ip} https://www.site.com:{port}/login",
        authority.display()
    );
    Tip { says: "the same by TLS: what is reversed becomes https", command }
}

fn shown(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// A command in lines of at most `width` that a shell takes for one.
#[must_use]
pub fn wrap(command: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = command.to_owned();
    while rest.len() > width {
        let Some(at) = last_break(&rest, width.saturating_sub(2)) else { break };
        lines.push(format!("{} \\", &rest[..at]));
        rest = format!("  {}", &rest[at + 1..]);
    }
    lines.push(rest);
    lines
}

/// The last space up to `most` that is not within quotes or indentation.
fn last_break(text: &str, most: usize) -> Option<usize> {
    let outside = |at: usize| text[..at].matches('\'').count().is_multiple_of(2);
    let spaces = text.match_indices(' ').map(|(at, _)| at).skip_while(|at| *at < 2);
    spaces.take_while(|at| *at <= most).filter(|at| outside(*at)).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_tls_trusts_the_demos_own_authority() {
        let tip = by_tls("0.0.0.0:8443".parse().unwrap(), Path::new("/tmp/a.pem"));
        let expected = "curl -i --cacert /tmp/a.pem --resolve www.site.com:8443:127.0.0.1 ";
        assert_eq!(tip.command, format!("{expected}https://www.site.com:8443/login"));
    }

    #[test]
    fn a_long_command_is_broken_where_a_shell_joins_it_again() {
        let lines = wrap("curl -i -H 'Cookie: a=b c' http://www.site.com/", 30);
        assert_eq!(lines, ["curl -i -H 'Cookie: a=b c' \\", "  http://www.site.com/"]);
        assert_eq!(wrap("curl 'a b c d e f'", 12), ["curl \\", "  'a b c d e f'"]);
        assert_eq!(wrap("http://localhost:8080/", 10), ["http://localhost:8080/"]);
    }

    #[test]
    fn the_tips_fit_under_the_table_of_a_small_terminal() {
        let tips = tips(
            ([127, 0, 0, 1], 18080).into(),
            ([127, 0, 0, 1], 19090).into(),
            Path::new("/tmp/b"),
        );
        let lines: Vec<_> = tips.iter().flat_map(|tip| wrap(&tip.command, 80)).collect();
        assert!(lines.len() <= 12 && lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
    }

    #[test]
    fn what_listens_everywhere_is_reached_on_this_machine() {
        let tips =
            tips("[::]:8080".parse().unwrap(), "0.0.0.0:9090".parse().unwrap(), Path::new("b"));
        assert!(tips[0].command.contains("--resolve www.site.com:8080:[::1] "));
        assert!(tips[4].command.contains("http://127.0.0.1:9090/table"));
    }
}
