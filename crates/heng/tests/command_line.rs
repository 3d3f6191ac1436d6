//! The command line: what is printed where, and with which exit code.

use std::os::unix::process::CommandExt;
use std::process::Command;

use testkit::{Config, Server, binary};

/// Exit code, standard output and standard error of a run under a name, with arguments.
fn run(name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary()).arg0(name).args(arguments).output();
    let output = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("messages are text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn mistakes_are_told_in_nginx_words() {
    for (arguments, expected) in [
        (&["-x"][..], "invalid option: \"x\""),
        (&["-tx"], "invalid option: \"x\""),
        (&["foo"], "invalid option: \"foo\""),
        (&["--help"], "invalid option: \"-\""),
        (&["-c"], "option \"-c\" requires file name"),
        (&["-e"], "option \"-e\" requires file name"),
        (&["-p"], "option \"-p\" requires directory name"),
        (&["-g"], "option \"-g\" requires parameter"),
        (&["-s"], "option \"-s\" requires parameter"),
        (&["-s", "foo"], "invalid option: \"-s foo\""),
    ] {
        let expected = (Some(1), String::new(), format!("nginx: {expected}\n"));
        assert_eq!(run("nginx", arguments), expected, "{arguments:?}");
    }
    assert_eq!(run("heng", &["-x"]).2, "heng: invalid option: \"x\"\n");
}

#[test]
fn the_version_depends_on_the_name() {
    let nginx = (Some(0), String::new(), "nginx version: nginx/1.31.5\n".to_owned());
    assert_eq!(run("nginx", &["-v"]), nginx);
    let own = format!("heng version: heng/{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run("heng", &["-v"]), (Some(0), String::new(), own));
}

#[test]
fn the_configuration_of_the_build_is_told() {
    let (code, out, text) = run("nginx", &["-V"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, out.as_str(), lines[0]), (Some(0), "", "nginx version: nginx/1.31.5"));
    assert!(lines[1].starts_with("built with "), "{text}");
    assert!(lines[2].contains("with OpenSSL 3.0.0"), "{text}");
    assert_eq!(lines[3], "TLS SNI support enabled");
    assert!(lines[4].starts_with("configure arguments: --prefix="), "{text}");
    assert_eq!(lines.len(), 5);
}

#[test]
fn help_names_every_option() {
    for option in ["-h", "-?"] {
        let (code, _, text) = run("nginx", &[option]);
        assert_eq!(code, Some(0));
        assert!(
            text.starts_with("nginx version: nginx/1.31.5\nUsage: nginx [-?hvVtTq] [-s signal]")
        );
        for letter in ["-?,-h", "-v", "-V", "-t", "-T", "-q", "-s", "-p", "-e", "-c", "-g"] {
            assert!(text.contains(&format!("\n  {letter} ")), "{letter} in {text}");
        }
    }
}

const GOOD: &str = "events {}\n";

fn tested(config: Config, arguments: &[&str]) -> testkit::Outcome {
    Server::run(arguments.iter().fold(config, |config, argument| config.argument(argument)))
}

#[test]
fn a_good_configuration_is_tested() {
    let outcome = tested(Config::new(GOOD).called("nginx"), &["-t"]).expect(0);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("nginx: the configuration file /"), "{outcome}");
    assert!(lines[0].ends_with("/nginx.conf syntax is ok"), "{outcome}");
    assert!(lines[1].ends_with("/nginx.conf test is successful"), "{outcome}");
    assert_eq!((lines.len(), outcome.stdout.as_str()), (2, ""));
    let quiet = tested(Config::new(GOOD), &["-tq"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn a_bad_configuration_is_told_and_logged() {
    let outcome = tested(Config::new("events {}\nfoo bar;\n").called("nginx"), &["-t", "-q"]);
    let outcome = outcome.expect(1);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("nginx: [emerg] unknown directive \"foo\" in /"), "{outcome}");
    assert!(lines[0].ends_with("/nginx.conf:2"), "{outcome}");
    assert!(lines.last().is_some_and(|line| line.ends_with("nginx.conf test failed")));
    let outcome = Server::try_start(Config::new("events {}\nfoo bar;\n")).err().expect("refused");
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_missing_events_block_is_found_after_the_syntax() {
    let outcome = tested(Config::new("").called("nginx"), &["-t"]).expect(1);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].ends_with("syntax is ok"), "{outcome}");
    assert_eq!(lines[1], "nginx: [emerg] no \"events\" section in configuration");
    assert!(lines[2].ends_with("test failed"), "{outcome}");
}

#[test]
fn the_configuration_is_dumped_with_its_includes() {
    let config =
        Config::new("events { use poll; }\ninclude conf/*.conf;\n").file("conf/a.conf", "# a");
    let outcome = tested(config, &["-T"]).expect(0);
    let parts: Vec<&str> = outcome.stdout.split("# configuration file ").collect();
    assert_eq!(parts.len(), 3, "{outcome}");
    let text = "/nginx.conf:\nevents { use poll; }\ninclude conf/*.conf;\n\n";
    assert!(parts[1].ends_with(text), "{outcome}");
    assert!(parts[2].ends_with("/conf/a.conf:\n# a\n"), "{outcome}");
}

#[test]
fn directives_of_the_command_line_count() {
    let outcome = tested(Config::new(GOOD).globals("worker_processes x;"), &["-t"]).expect(1);
    let text = "\"worker_processes\" directive invalid value in command line";
    assert!(outcome.stderr.contains(text), "{outcome}");
}

#[test]
fn files_that_cannot_be_opened_fail_the_test() {
    let outcome = tested(Config::new("error_log nowhere/x; events {}"), &["-t"]).expect(1);
    let text = "nowhere/x\" failed (2: No such file or directory)";
    assert!(outcome.stderr.contains("syntax is ok"), "{outcome}");
    assert!(outcome.stderr.contains("[emerg] open() \"/"), "{outcome}");
    assert!(outcome.stderr.contains(text), "{outcome}");
}

#[test]
fn a_signal_needs_a_running_master() {
    let outcome = tested(Config::new(GOOD), &["-s", "reload"]).expect(1);
    assert!(outcome.stderr.contains("[error] open() \"/"), "{outcome}");
    assert!(outcome.stderr.contains("nginx.pid\" failed (2: No such file"), "{outcome}");
    let broken = Config::new("pid nginx.pid; events {}").file("nginx.pid", "nonsense\n");
    let outcome = tested(broken, &["-s", "stop"]).expect(1);
    assert!(outcome.stderr.contains("[error] invalid PID number \"nonsense\" in \"/"), "{outcome}");
}

#[test]
fn signals_reach_the_master() {
    let mut server = Server::start(Config::new("events {} error_log error.log notice;"));
    server.command(&["-g", &pid(&server), "-s", "reopen"]).expect(0);
    server.wait_for_log("reopening logs");
    server.command(&["-g", &pid(&server), "-s", "reload"]).expect(0);
    server.wait_for_log("gracefully shutting down");
    server.command(&["-g", &pid(&server), "-s", "quit"]).expect(0);
    assert_eq!(server.wait_exit().code, Some(0));
    let mut server = Server::start(Config::new(GOOD));
    server.command(&["-g", &pid(&server), "-s", "stop"]).expect(0);
    assert_eq!(server.wait_exit().code, Some(0));
}

/// The pid file that the testkit gave to the server.
fn pid(server: &Server) -> String {
    format!("pid {};", server.pid_file().display())
}

#[test]
fn the_manual_lists_directives() {
    let (code, names, _) = run("heng", &["manual", "--names"]);
    assert_eq!(code, Some(0));
    assert!(names.lines().any(|line| line == "worker_processes"), "{names}");
    assert!(names.lines().any(|line| line.starts_with("accept_mutex\t")), "{names}");
    // Under its other name the program has nginx's command line and nothing else.
    assert_eq!(run("nginx", &["manual"]).2, "nginx: invalid option: \"manual\"\n");
}
