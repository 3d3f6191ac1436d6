//! What `-v`, `-V` and `-h` print.

use system::identity::identity;

use crate::command_line::Shown;
use crate::modules;
use crate::paths;

/// The text for stderr, its last newline included.
pub fn text(shown: Shown) -> String {
    let identity = identity();
    let mut text = format!("{} version: {}\n", identity.program, identity.server);
    if shown.help {
        text.push_str(&help());
    }
    if shown.configure {
        text.push_str(&format!(
            "built with Rust\n\
             built with rustls; what is negotiated and verified has the names that it \
             has with OpenSSL 3.0.0\n\
             TLS SNI support enabled\nconfigure arguments: {}\n",
            configure_arguments().join(" ")
        ));
    }
    text
}

fn help() -> String {
    let program = identity().program;
    // The second line of options starts under the first one's bracket.
    let indent = " ".repeat("Usage:  ".len() + program.len());
    let prefix = if paths::PREFIX.is_empty() {
        "the current directory".to_owned()
    } else {
        format!("{}/", paths::PREFIX)
    };
    let error_log = paths::ERROR_LOG;
    let configuration = paths::default_configuration();
    let configuration = configuration.display();
    format!(
        "Usage: {program} [-?hvVtTq] [-s signal] [-p prefix]\n\
         {indent}[-e filename] [-c filename] [-g directives]\n\
         \n\
         Options:\n  \
         -?,-h         : this help\n  \
         -v            : show version and exit\n  \
         -V            : show version and configure options then exit\n  \
         -t            : test configuration and exit\n  \
         -T            : test configuration, dump it and exit\n  \
         -q            : suppress non-error messages during configuration testing\n  \
         -s signal     : send signal to a master process: stop, quit, reopen, reload\n  \
         -p prefix     : set prefix path (default: {prefix})\n  \
         -e filename   : set error log file (default: {error_log})\n  \
         -c filename   : set configuration file (default: {configuration})\n  \
         -g directives : set global directives out of configuration file\n\n{}",
        subcommands()
    )
}

/// What stands in place of options; under the name nginx there is none.
fn subcommands() -> &'static str {
    match identity().program {
        "nginx" => "",
        _ => {
            "Instead of options:\n  \
             cert          : make a certificate that signs itself, for trying TLS out\n  \
             demo          : a balancer over three backends, to be tried and broken\n  \
             manual        : print the reference manual\n  \
             net-setup     : print the rules of the network that transparent servers need\n\n"
        }
    }
}

/// True words about this build, in nginx's form: tools read which modules exist.
fn configure_arguments() -> Vec<String> {
    let mut arguments = paths::configure_arguments();
    arguments.extend(modules::configure_arguments(&modules::registry()));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_laid_out_as_nginx_does() {
        let text = text(Shown { version: true, help: true, configure: false });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "Usage: heng [-?hvVtTq] [-s signal] [-p prefix]");
        assert_eq!(lines[2], "            [-e filename] [-c filename] [-g directives]");
        assert_eq!(lines[1].find('['), lines[2].find('['));
        assert_eq!(lines[5], "  -?,-h         : this help");
        assert!(text.contains("out of configuration file\n\nInstead of options:\n  cert "));
    }

    #[test]
    fn the_configure_line_starts_with_the_prefix() {
        let text = text(Shown { version: true, help: false, configure: true });
        let line = text.lines().last().unwrap_or_default();
        assert!(line.starts_with("configure arguments: --prefix="), "{line}");
    }
}
