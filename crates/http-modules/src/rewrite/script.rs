//! The list of operations of one level, and how it runs.

use super::answer::Return;
use super::condition::Test;
use super::replacement::{self, Rewrite};
use http::location::Location;
use http::{Exchange, Guard, Stage, Step, Verdict};
use session::pattern::GivenUp;
use session::variables::{Template, VariableId, assign};
use std::rc::Rc;

/// One directive, compiled.
pub(super) enum Operation {
    Set {
        variable: VariableId,
        value: Template,
    },
    Rewrite(Rewrite),
    Return(Return),
    Break,
    /// When `test` fails, the operation `after` is next; else the one behind this, in `location`
    /// where there is one.
    If {
        test: Test,
        location: Option<Rc<Location>>,
        after: usize,
    },
}

/// The operations of a level in the order of the file.
pub(super) struct Script {
    pub(super) operations: Vec<Operation>,
    /// `rewrite_log`
    pub(super) is_logged: bool,
}

/// What one run of a script remembers.
pub(super) struct Run {
    /// The path was changed, and nothing has said yet that the location stays.
    pub(super) is_changed: bool,
    /// Groups are escaped where a value is made of them. nginx does so until the first `rewrite`
    /// of the list has matched.
    pub(super) is_escaping: bool,
    /// `rewrite_log`
    pub(super) is_logged: bool,
}

impl Run {
    /// The value of a template; groups of a path that came with escapes are escaped again.
    pub(super) fn value(&self, x: &mut Exchange, template: &Template) -> session::text::Span {
        match self.is_escaping {
            true => template.value_with(x, replacement::escaped_group),
            false => template.value(x),
        }
    }
}

/// What follows an operation.
pub(super) enum Flow {
    /// The next operation.
    Next,
    /// Nothing: the list has ended.
    End,
    /// An answer.
    Verdict(Verdict),
}

impl Script {
    fn run(&self, x: &mut Exchange) -> Verdict {
        let mut run = Run { is_changed: false, is_escaping: true, is_logged: self.is_logged };
        let mut at = 0;
        while let Some(operation) = self.operations.get(at) {
            at += 1;
            match operation {
                Operation::Set { variable, value } => {
                    let value = run.value(x, value);
                    assign(x, *variable, value);
                }
                Operation::Rewrite(rewrite) => match rewrite.apply(x, &mut run) {
                    Flow::Next => {}
                    Flow::End => break,
                    Flow::Verdict(verdict) => return verdict,
                },
                Operation::Return(answer) => return answer.verdict(x),
                Operation::Break => {
                    x.request.detached |= run.is_changed;
                    run.is_changed = false;
                    break;
                }
                Operation::If { test, location, after } => match test.holds(x, &run) {
                    Ok(true) => {
                        if let Some(location) = location {
                            x.location = location.clone();
                        }
                    }
                    Ok(false) => at = *after,
                    Err(GivenUp) => return Verdict::Status(500),
                },
            }
        }
        if run.is_changed { Verdict::Relocate } else { Verdict::Next }
    }
}

impl Guard for Script {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.run(x))
    }
}
