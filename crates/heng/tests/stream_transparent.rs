//! Connections and packets that are taken on their way to somebody else, and go on there with the
//! client's own address: in namespaces of the network, which only the superuser can make.
//!
//! ```text
//!   client 10.1.0.2 ---- 10.1.0.1 router 10.2.0.1 ---- 10.2.0.2 server
//! ```

use std::process::{Command, Stdio};

use testkit::{Config, Server, binary};

/// Namespaces that go away at the end.
struct Network {
    name: String,
}

impl Network {
    /// Nothing when this user or this machine cannot make one.
    fn new(of: &str) -> Option<Network> {
        let network = Network { name: format!("heng{of}{}", std::process::id()) };
        let name = |part: &str| network.of(part);
        let (client, router, server) = (name("c"), name("r"), name("s"));
        let mut script = String::new();
        for one in [&client, &router, &server] {
            script += &format!("ip netns add {one} && ip -n {one} link set lo up && ");
        }
        for (one, number) in [(&client, 1), (&server, 2)] {
            script += &format!(
                "ip -n {router} link add e{number} type veth peer name e netns {one} && \
                 ip -n {router} addr add 10.{number}.0.1/24 dev e{number} && \
                 ip -n {router} link set e{number} up && \
                 ip -n {one} addr add 10.{number}.0.2/24 dev e && \
                 ip -n {one} link set e up && \
                 ip -n {one} route add default via 10.{number}.0.1 && "
            );
        }
        script += &format!(
            "ip netns exec {router} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward && \
             nft list ruleset'"
        );
        let made = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).output();
        made.is_ok_and(|made| made.status.success()).then_some(network)
    }

    fn of(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    /// A program that is the server under test inside a namespace.
    fn program(&self, part: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("{}.sh", self.of(part)));
        let text = format!(
            "#!/bin/sh\nexec ip netns exec {} {} \"$@\"\n",
            self.of(part),
            binary().display()
        );
        std::fs::write(&path, text).expect("the temporary folder is there");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("the file is ours");
        path
    }

    /// What a command in a namespace says.
    fn run(&self, part: &str, command: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.of(part), "bash", "-c", command])
            .output()
            .expect("bash is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for part in ["c", "r", "s"] {
            let _ = Command::new("ip").args(["netns", "del", &self.of(part)]).output();
            let path = std::env::temp_dir().join(format!("{}.sh", self.of(part)));
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What `net-setup` says about a server's configuration, and what it complains of.
fn net_setup(server: &Server, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(binary());
    command.arg("net-setup").args(arguments).arg("-c").arg(server.path("nginx.conf"));
    let output = command.output().expect("the program can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

const TRANSPARENT: &str = "log_format way '$remote_addr $server_addr:$server_port $upstream_addr';
     access_log %%DIR%%/logs/access.log way;
     server { listen %%PORT_0%% transparent; proxy_bind $remote_addr transparent;
         proxy_pass $server_addr:$server_port; }";

#[test]
fn intercepted_connections_reach_whom_they_were_meant_for() {
    let Some(network) = Network::new("t") else { return skip() };
    let far = Server::start(
        Config::stream("server { listen 10.2.0.2:7; return '$remote_addr $server_addr'; }")
            .program(network.program("s")),
    );
    let near = Server::start(Config::stream(TRANSPARENT).program(network.program("r")));
    let rules = net_setup(&near, &["--print"]).0;
    network.run("r", &format!("set -e\n{rules}"));
    let answer = network.run("c", "exec 3<>/dev/tcp/10.2.0.2/7; cat <&3");
    assert_eq!(answer, "10.1.0.2 10.2.0.2");
    near.wait_for_access("10.1.0.2 10.2.0.2:7 10.2.0.2:7");
    drop((near, far));
}

fn skip() {
    eprintln!("SKIPPED: namespaces of the network need the superuser, ip and nft");
}

/// A server of packets that says who asked.
const ECHO: &str = "server { listen 10.2.0.2:7 udp; return '$remote_addr $server_addr'; }";

/// Two packets from one socket that accepts answers only from the address that it asks, and what
/// comes back.
fn asks_twice(address: &str) -> String {
    let ask = "printf q >&3; timeout 20 dd bs=512 count=1 status=none <&3; echo -n ';'";
    format!("exec 3<>/dev/udp/{address}; {ask}; {ask}")
}

#[test]
fn intercepted_packets_reach_whom_they_were_meant_for() {
    let Some(network) = Network::new("u") else { return skip() };
    let far = Server::start(Config::stream(ECHO).program(network.program("s")));
    let near = Server::start(
        Config::stream(
            "log_format way '$remote_addr $server_addr:$server_port $upstream_addr';
             access_log %%DIR%%/logs/access.log way;
             server { listen %%PORT_0%% udp transparent; proxy_bind $remote_addr transparent;
                 proxy_pass $server_addr:$server_port; proxy_requests 2; proxy_responses 1; }",
        )
        .program(network.program("r")),
    );
    let rules = net_setup(&near, &["--print"]).0;
    network.run("r", &format!("set -e\n{rules}"));
    let answers = network.run("c", &asks_twice("10.2.0.2/7"));
    assert_eq!(answers, "10.1.0.2 10.2.0.2;10.1.0.2 10.2.0.2;");
    near.wait_for_access("10.1.0.2 10.2.0.2:7 10.2.0.2:7");
    drop((near, far));
}

#[test]
fn intercepted_packets_may_go_elsewhere_and_answers_come_from_whom_was_asked() {
    let Some(network) = Network::new("g") else { return skip() };
    let far = Server::start(Config::stream(ECHO).program(network.program("s")));
    let near = Server::start(
        Config::stream(
            "upstream far { server 10.2.0.2:7; }
             server { listen 0.0.0.0:%%PORT_0%% udp transparent; proxy_pass far; }",
        )
        .program(network.program("r")),
    );
    let rules = net_setup(&near, &["--print"]).0;
    network.run("r", &format!("set -e\n{rules}"));
    // Nobody has these addresses; the second one is asked for under the listener's own port.
    for address in ["10.2.0.77/9".to_owned(), format!("10.2.0.78/{}", near.port(0))] {
        let answers = network.run("c", &asks_twice(&address));
        assert_eq!(answers, "10.2.0.1 10.2.0.2;10.2.0.1 10.2.0.2;", "{address}");
    }
    drop((near, far));
}

#[test]
fn what_needs_no_rules_says_so() {
    let server = Server::start(Config::stream("server { listen 127.0.0.1:%%PORT_0%%; return x; }"));
    let (output, _) = net_setup(&server, &["--print"]);
    assert!(output.contains("no rules are needed"), "{output}");
    let (_, errors) = net_setup(&server, &[]);
    assert!(errors.contains("usage: net-setup --print"), "{errors}");
}
