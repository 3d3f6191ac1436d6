//! Real MariaDB, PostgreSQL and Redis under active checks: well while they work, ill while they
//! are frozen although the kernel still takes connections for them, well again afterwards.
//!
//! Needs: mariadbd, pg_createcluster, redis-server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use testkit::{Config, Port, Server, Signal, signal};

/// A program of ours, ended with the test.
struct Service {
    child: Child,
    /// Processes that serve in its place, and would stay.
    folder: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        signal(self.child.id(), Signal::CONT);
        signal(self.child.id(), Signal::QUIT);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.folder.join("said")).unwrap_or_default();
            eprintln!("--- what the database said\n{said}---");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A fresh folder that the user of a database may write to.
fn folder(name: &str, user: Option<&str>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("heng-{name}-{}", std::process::id()));
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

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
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

fn start(command: &mut Command, folder: PathBuf) -> Service {
    let said = std::fs::File::create(folder.join("said")).expect("a file");
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    Service { child: quiet.spawn().expect("the program is installed"), folder }
}

/// Watches a database through a check: it becomes well, is frozen, becomes ill, and is thawed.
fn watch(kind: &str, port: u16, service: &Service) {
    let text = format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u;
             proxy_read_timeout 500ms;
             health_check interval=50ms mandatory type={kind}; }} }}"
    );
    let server = Server::start(Config::http(&text).main("error_log %%DIR%%/error.log notice;"));
    let count = |words: &str| server.error_log().matches(words).count();
    server.wait_until("a database that is well", || count("peer is healthy") >= 1);
    let ill_before = count("peer is unhealthy");
    signal(service.child.id(), Signal::STOP);
    server.wait_until("a frozen one that is ill", || count("peer is unhealthy") > ill_before);
    let log = server.error_log();
    let last = log.lines().rev().find(|line| line.contains("peer is unhealthy"));
    assert!(last.is_some_and(|line| line.contains("timed out")), "{last:?}");
    let well_before = count("peer is healthy");
    signal(service.child.id(), Signal::CONT);
    server.wait_until("a thawed one that is well", || count("peer is healthy") > well_before);
}

#[test]
fn redis() {
    let port = Port::reserve();
    let number = port.number().to_string();
    let place = folder("redis", None);
    let mut command = Command::new("redis-server");
    command.args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(&place);
    drop(port);
    let service = start(&mut command, place);
    watch("redis", number.parse().expect("a port"), &service);
}

#[test]
fn mariadb() {
    let place = folder("mariadb", Some("mysql"));
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
    let service = start(&mut command, place);
    watch("mysql", number, &service);
    // An account without a password may be let in, and must answer a ping.
    watch("mysql user=root", number, &service);
}

#[test]
fn postgresql() {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max();
    let programs = newest.expect("a version").join("bin");
    let place = folder("postgresql", Some("postgres"));
    let data = place.join("data");
    run(as_user("postgres", &programs.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-D"])
        .arg(&data));
    let port = Port::reserve();
    let number = port.number().to_string();
    let mut command = as_user("postgres", &programs.join("postgres"));
    // It looks at the directory it is in, and its user may not look at ours.
    command.current_dir(&place).args(["-h", "127.0.0.1", "-p", &number, "-k"]).arg(&place);
    command.arg("-D").arg(&data);
    drop(port);
    let service = start(&mut command, place);
    let number = number.parse().expect("a port");
    watch("pgsql", number, &service);
    // Trusted: it must answer a query.
    watch("pgsql user=postgres", number, &service);
}
