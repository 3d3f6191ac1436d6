//! The reference manual, written from the directive tables. Its output depends on its input
//! alone, so a test can tell a stale page.

use std::fmt::Write as _;

use crate::directive::AnyDirective;

/// One page in Markdown: a title, an introduction, each directive (syntax, default, contexts,
/// text, example) in the order given, and the variables as `(name with $, text)`.
pub fn render(
    title: &str,
    intro: &str,
    directives: &[&dyn AnyDirective],
    variables: &[(&str, &str)],
) -> String {
    let mut page = format!("# {title}\n");
    if !intro.trim().is_empty() {
        let _ = write!(page, "\n{}\n", intro.trim());
    }
    if !directives.is_empty() {
        page.push_str("\n## Directives\n");
    }
    for directive in directives {
        render_directive(&mut page, *directive);
    }
    if !variables.is_empty() {
        page.push_str("\n## Variables\n\n");
    }
    for (name, text) in variables {
        let _ = writeln!(page, "- `{name}`: {}", text.trim());
    }
    page
}

fn render_directive(page: &mut String, directive: &dyn AnyDirective) {
    let spec = directive.spec();
    let _ = write!(page, "\n### {}\n\n", spec.name);
    for form in spec.syntax.lines().map(str::trim) {
        let _ = writeln!(page, "- Syntax: `{form}`");
    }
    match spec.default {
        Some(default) if spec.opens.is_some() => {
            let _ = writeln!(page, "- Default: `{} {default}`", spec.name);
        }
        Some(default) => {
            let _ = writeln!(page, "- Default: `{} {default};`", spec.name);
        }
        None => page.push_str("- Default: none\n"),
    }
    let contexts: Vec<&str> = spec.contexts.iter().map(|context| context.shown).collect();
    let _ = writeln!(page, "- Context: {}", contexts.join(", "));
    if !spec.text.trim().is_empty() {
        let _ = write!(page, "\n{}\n", spec.text.trim());
    }
    if let Some(why) = spec.moot {
        let _ = write!(page, "\nIt changes nothing here: {}\n", why.trim());
    }
    if !spec.example.trim().is_empty() {
        let _ = write!(page, "\n```nginx\n{}\n```\n", spec.example.trim_matches('\n').trim_end());
    }
}
