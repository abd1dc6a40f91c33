//! The house rules that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_line_of_the_example_settings_is_read_and_every_setting_has_a_line() {
    let example = fs::read_to_string(root().join(".env.example")).unwrap();
    let config = fs::read_to_string(root().join("shared/src/config.rs")).unwrap();
    let listed: Vec<&str> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .collect();
    for name in &listed {
        let is_read = *name == "LOG" || config.contains(&format!("\"{name}\""));
        assert!(is_read, "{name} is in .env.example but never read");
    }
    let is_name = |text: &str| {
        text.len() > 3
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let code = config.split("#[cfg(test)]").next().unwrap();
    for name in code.split('"').skip(1).step_by(2).filter(|text| is_name(text)) {
        assert!(listed.contains(&name), "{name} is read but not in .env.example");
    }
}

#[test]
fn rules_are_pure() {
    for file in [
        "payments/status.rs",
        "subscriptions/periods.rs",
        "tokens/ledger.rs",
        "tokens/take_back.rs",
        "top_ups/rules.rs",
    ] {
        let text = fs::read_to_string(root().join("shared/src").join(file)).unwrap();
        assert!(!text.contains("async ") && !text.contains("sqlx::query"), "{file} is not pure");
    }
}

#[test]
fn only_the_named_files_know_the_queue() {
    for folder in ["shared/src", "api/src", "worker/src", "cli/src"] {
        for file in files(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let may = ["shared/src/jobs.rs", "shared/src/db.rs", "worker/src/lib.rs"];
            let knows =
                text.contains("apalis::") || text.contains("apalis_") || text.contains("apalis.");
            assert!(!knows || may.contains(&name.as_str()), "{name} names apalis");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
