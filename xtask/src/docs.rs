//! The reference manual: written by the program from its directive tables, and kept fresh.

use crate::workspace::{build_heng, root, succeeds};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where the manual lies in the workspace.
const PLACE: &str = "docs/manual";

/// Writes the manual anew.
pub(crate) fn write() -> Result<bool, String> {
    let place = root().join(PLACE);
    // Pages of modules that are gone must go too.
    if place.exists() {
        fs::remove_dir_all(&place).map_err(|error| format!("cannot clear {PLACE}: {error}"))?;
    }
    generate(&place)?;
    println!("docs: {} pages in {PLACE}", pages(&place)?.len());
    Ok(true)
}

/// True when the manual in the workspace is what the program would write.
pub(crate) fn check() -> Result<bool, String> {
    let fresh = std::env::temp_dir().join(format!("heng-manual-{}", std::process::id()));
    let result = generate(&fresh).and_then(|()| compare(&root().join(PLACE), &fresh));
    // What stays in a temporary directory does no harm.
    let _ = fs::remove_dir_all(&fresh);
    let stale = result?;
    for name in &stale {
        eprintln!("docs: {PLACE}/{name} is stale: run `cargo xtask docs`");
    }
    if stale.is_empty() {
        println!("docs: {PLACE} is fresh");
    }
    Ok(stale.is_empty())
}

fn generate(place: &Path) -> Result<(), String> {
    let program = build_heng()?;
    fs::create_dir_all(place)
        .map_err(|error| format!("cannot make {}: {error}", place.display()))?;
    let mut manual = Command::new(program);
    match succeeds(manual.arg("manual").arg("--dir").arg(place))? {
        true => Ok(()),
        false => Err("heng cannot write its manual".to_string()),
    }
}

/// The names of pages that differ or stand on one side only.
fn compare(kept: &Path, fresh: &Path) -> Result<Vec<String>, String> {
    let names: BTreeSet<String> = pages(kept)?.union(&pages(fresh)?).cloned().collect();
    let differs = |name: &String| {
        let (old, new) = (fs::read(kept.join(name)), fs::read(fresh.join(name)));
        !matches!((old, new), (Ok(old), Ok(new)) if old == new)
    };
    Ok(names.into_iter().filter(differs).collect())
}

fn pages(place: &Path) -> Result<BTreeSet<String>, String> {
    if !place.exists() {
        return Ok(BTreeSet::new());
    }
    let entries = fs::read_dir(place);
    let entries = entries.map_err(|error| format!("cannot list {}: {error}", place.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
