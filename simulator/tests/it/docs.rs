//! The page for adopters says what there is, no more and no less.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md");
    std::fs::read_to_string(path).unwrap()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.collect()
}

/// The words that stand between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

#[test]
fn every_control_route_has_a_line_and_every_line_a_route() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&folder).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
    let code: String = files.collect();
    let routes = between(&code, ".route(\"/_sim", "\"");

    let page = page();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<_> = rows.filter(|line| line.contains(" /_sim")).collect();
    let lines: BTreeSet<_> =
        rows.iter().filter_map(|row| row.split(" /_sim").nth(1)?.split('`').next()).collect();

    assert!(routes.len() > 30, "the routes were found");
    assert_eq!(routes, lines);
}

#[test]
fn every_fault_has_a_line_and_every_line_is_a_fault() {
    let page = page();
    let table = page.split("## Faults").nth(1).unwrap();

    let lines: Vec<_> = between(table, "\n| `", "`").into_iter().collect();

    for name in &lines {
        let trouble = serde_json::json!({
            "kind": name, "ms": 1, "times": 1, "within_ms": 1, "seconds": 1, "retry_after_s": 1,
        });
        let read = serde_json::from_value::<simulator::Trouble>(trouble);
        assert!(read.is_ok(), "{name}: {read:?}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code = std::fs::read_to_string(folder.join("pages/state.rs")).unwrap();
    let offered: Vec<_> = between(&code, "    kind(\"", "\"").into_iter().collect();
    assert_eq!(lines, offered);
}
