//! Real Redis, PostgreSQL, MariaDB and DNS clients through `stream`: under load, over reloads,
//! past a worker that is killed and a server that is not there.
//!
//! Needs: redis-server, mariadbd, pg_createcluster, dnsperf, nginx.
//! Needs: /usr/lib/nginx/modules/ngx_stream_module.so.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use testkit::{Backend, Config, Port, Server, Signal, kill, signal, until};

/// A program of ours, ended with the test.
struct Service {
    child: Child,
    folder: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        signal(self.child.id(), Signal::QUIT);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Service {
    fn start(command: &mut Command, folder: PathBuf) -> Service {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Service { child: quiet.spawn().expect("the program is installed"), folder }
    }
}

/// A fresh folder that the user of a database may write to.
fn folder(name: &str, user: Option<&str>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("heng-stream-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    if let Some(user) = user.filter(|_| is_root()) {
        run(Command::new("chown").arg(user).arg(&path));
    }
    path
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program is installed")
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `program` as `user` when we may choose, for programs that refuse to run as root.
fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), "--clear-groups"]).arg(program);
    command
}

/// A server that passes its first port on to a backend, behind one that is not there. Asked while
/// the backend starts, no worker counts that against it.
fn balancer(port: u16) -> Server {
    Server::start(
        Config::stream(
            "upstream u { server 127.0.0.1:%%GONE%%; server 127.0.0.1:%%BACKEND%% max_fails=0; }
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass u; }",
        )
        .main("worker_processes 2; error_log %%DIR%%/error.log crit;")
        .with("GONE", Backend::refusing().port())
        .with("BACKEND", port),
    )
}

#[track_caller]
fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(until(condition), "{what}");
}

#[test]
fn redis_under_load_and_over_reloads() {
    let port = Port::reserve();
    let number = port.number();
    let place = folder("redis", None);
    let mut command = Command::new("redis-server");
    command.args(["--port", &number.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    command.arg(&place);
    drop(port);
    let _service = Service::start(&mut command, place);
    let server = balancer(number);
    let front = server.port(0).to_string();
    let ping =
        || output(Command::new("redis-cli").args(["-p", &front, "ping"])).stdout == b"PONG\n";
    wait_for("redis answers", ping);
    let bench = thread::spawn(move || {
        let arguments = ["-n", "20000", "-c", "50", "-t", "set,get", "--csv", "-p", &front];
        run(Command::new("redis-benchmark").args(arguments))
    });
    for _ in 0..3 {
        server.reload();
    }
    let said = bench.join().expect("the benchmark ends");
    assert!(said.contains("\"SET\"") && said.contains("\"GET\""), "{said}");
    assert!(!said.to_ascii_lowercase().contains("error"), "{said}");
}

#[test]
fn postgresql_under_load_past_a_killed_worker() {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max();
    let programs = newest.expect("a version").join("bin");
    let place = folder("postgresql", Some("postgres"));
    let data = place.join("data");
    let mut command = as_user("postgres", &programs.join("initdb"));
    run(command.args(["-U", "postgres", "-A", "trust", "-D"]).arg(&data));
    let port = Port::reserve();
    let number = port.number();
    let mut command = as_user("postgres", &programs.join("postgres"));
    command.current_dir(&place).args(["-h", "127.0.0.1", "-p", &number.to_string(), "-k"]);
    command.arg(&place).arg("-D").arg(&data);
    drop(port);
    let _service = Service::start(&mut command, place);
    let mut server = balancer(number);
    // The master says loudly that a worker was killed.
    server.expect_alerts();
    let front = server.port(0).to_string();
    let pgbench = |arguments: &[&str]| {
        let mut command = Command::new(programs.join("pgbench"));
        let rest = ["-h", "127.0.0.1", "-p", &front, "-U", "postgres", "postgres"];
        output(command.args(arguments).args(rest))
    };
    wait_for("PostgreSQL answers", || pgbench(&["-i", "-q", "-s", "1"]).status.success());
    let load = ["-S", "-c", "8", "-j", "2", "-T", "2"];
    let prefix = format!("--log-prefix={}", server.path("bench").display());
    let logged = [&load[..], &["-l", &prefix]].concat();
    let during = thread::scope(|scope| {
        let bench = scope.spawn(|| pgbench(&logged));
        // The first connection, for setting up, is one that it does not go on without.
        server.wait_until("transactions are done", || {
            let files = std::fs::read_dir(server.path("")).expect("the server's folder");
            files.filter_map(Result::ok).any(|file| {
                file.file_name().to_string_lossy().starts_with("bench.")
                    && file.metadata().is_ok_and(|data| data.len() > 0)
            })
        });
        let worker = server.workers()[0];
        kill(worker);
        server.wait_until("another worker", || {
            let workers = server.workers();
            workers.len() == 2 && !workers.contains(&worker)
        });
        bench.join().expect("the benchmark ends")
    });
    // Clients of that worker lose their sessions; those of the other one do not.
    let said = String::from_utf8_lossy(&during.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&during.stderr);
    let summary = "number of transactions actually processed";
    assert!(said.contains(summary), "{said}{complaints}");
    let after = pgbench(&load);
    let said = String::from_utf8_lossy(&after.stdout).into_owned();
    assert!(after.status.success() && said.contains("failed transactions: 0 "), "{said}");
}

/// A MariaDB of its own, and its port.
fn mariadb(name: &str) -> (Service, u16) {
    let place = folder(name, Some("mysql"));
    let data = place.join("data");
    let user =
        if is_root() { "mysql".to_owned() } else { std::env::var("USER").unwrap_or_default() };
    run(Command::new("mariadb-install-db")
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .arg(format!("--user={user}"))
        .arg(format!("--datadir={}", data.display())));
    let port = Port::reserve();
    let number = port.number();
    let mut command = Command::new("mariadbd");
    command
        .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"])
        .arg(format!("--user={user}"))
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", place.join("s").display()))
        .arg(format!("--pid-file={}", place.join("pid").display()))
        .arg(format!("--port={number}"));
    drop(port);
    (Service::start(&mut command, place), number)
}

/// Writes go to the first server, by port; reads to both, until one is gone.
#[test]
fn mariadb_reads_and_writes_by_port_and_past_a_server_that_dies() {
    let ((_first, one), (second, two)) = (mariadb("mariadb1"), mariadb("mariadb2"));
    let server = Server::start(
        Config::stream(
            "upstream writes { server 127.0.0.1:%%ONE%%; }
             upstream reads { server 127.0.0.1:%%ONE%%; server 127.0.0.1:%%TWO%%; }
             log_format way '$server_port $status $upstream_addr';
             access_log %%DIR%%/logs/access.log way;
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass writes; }
             server { listen 127.0.0.1:%%PORT_1%%; proxy_pass reads; }
             server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%TWO%%; }",
        )
        .main("error_log %%DIR%%/error.log crit;")
        .with("ONE", one)
        .with("TWO", two),
    );
    let query = |port: usize, query: &str| {
        let port = format!("--port={}", server.port(port));
        let arguments = ["--no-defaults", "-h127.0.0.1", "-uroot", "-N", "--protocol=tcp"];
        output(Command::new("mariadb").args(arguments).arg(port).args(["-e", query]))
    };
    // Each says its own name, as a replica would not: reads show who answered.
    for (port, name) in [(0, 1), (2, 2)] {
        wait_for("MariaDB answers", || query(port, "create database heng").status.success());
        let fill = format!("create table heng.t (n int); insert into heng.t values ({name})");
        assert!(query(port, &fill).status.success());
    }
    let read = || query(1, "select n from heng.t").stdout;
    let mut seen: Vec<_> = (0..4).map(|_| read()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [b"1\n", b"2\n"], "both are read from");
    drop(second);
    for _ in 0..4 {
        assert_eq!(read(), b"1\n", "the other one is gone");
    }
    assert!(query(0, "insert into heng.t values (40)").status.success());
    let port = server.port(1);
    // The session that met the dead server went on to the living one.
    server.wait_for_access(&format!("{port} 200 127.0.0.1:{two}, 127.0.0.1:{one}"));
}

#[test]
fn dns_at_half_the_rate_of_nginx_loses_nothing() {
    // Answers each question with itself, marked as an answer.
    let dns = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = dns.local_addr().expect("a bound socket").port();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = dns.recv_from(&mut packet) {
            if length > 3 {
                packet[2] |= 0x80;
                let _ = dns.send_to(&packet[..length], from);
            }
        }
    });
    let line = "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_timeout 5s; }";
    let config = || Config::stream(line).main("worker_processes 2;").with("BACKEND", port);
    let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
    // Several sockets per worker, so that its workers share the packets as ours do.
    let theirs = Config::stream(&line.replace(" udp;", " udp reuseport;"))
        .main(&format!("{module} worker_processes 2;"))
        .with("BACKEND", port)
        .program("/usr/sbin/nginx");
    let names = std::env::temp_dir().join(format!("heng-names-{}", std::process::id()));
    std::fs::write(&names, "a.example A\nb.example AAAA\n").expect("the temporary folder");
    let nginx = Server::start(theirs);
    let sustained = ask(nginx.port(0), &names, None);
    drop(nginx);
    let rate = number(&sustained, "Queries per second");
    assert!(rate > 0.0, "{sustained}");
    let server = Server::start(config());
    let said = ask(server.port(0), &names, Some(rate / 2.0));
    let _ = std::fs::remove_file(names);
    let (sent, lost) = (number(&said, "Queries sent"), number(&said, "Queries lost"));
    assert!(sent > 500.0 && lost >= 0.0 && lost <= sent / 1000.0, "{sustained}\n{said}");
}

/// What dnsperf says of two seconds, at a rate or as fast as answers come.
fn ask(port: u16, names: &Path, rate: Option<f64>) -> String {
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &port.to_string(), "-l", "2", "-c", "20"]);
    if let Some(rate) = rate {
        command.args(["-Q", &(rate.max(500.0) as u64).to_string()]);
    }
    run(command.arg("-d").arg(names))
}

/// A number in what dnsperf says; -1 when it is not there.
fn number(said: &str, label: &str) -> f64 {
    let line = said.lines().find(|line| line.contains(label)).unwrap_or_default();
    let words = line.split(':').nth(1).unwrap_or_default();
    words.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1.0)
}
