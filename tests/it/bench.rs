//! The benchmark measures, and says so; its figures are not looked at.

use std::process::Command;

use harness::processes::build;
use serde_json::Value;

#[tokio::test]
async fn the_benchmark_measures_beside_pgbench_and_leaves_the_books_balanced() {
    let binary = build().join("tollgate");
    let json = std::env::temp_dir().join(format!("tollgate-bench-{}.json", std::process::id()));
    let wish =
        "bench --only spread --accounts 200 --clients 4 --seconds 1 --rounds 1 --allow-debug";
    let mut command = Command::new(&binary);
    command.args(wish.split(' ')).arg("--json").arg(&json);

    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert!(said.contains("the books balance"), "{said}");
    let written: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    for rows in ["rounds", "medians", "half_load"] {
        let row = &written[rows][0];
        assert_eq!(row["what"], "spread");
        assert_eq!(row["refused"], 0);
        assert!(row["ours_per_second"].as_f64().unwrap() > 0.0, "{rows}: {row}");
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_build_without_optimisation_is_not_measured_by_mistake() {
    let mut command = Command::new(build().join("tollgate"));
    command.args(["bench", "--seconds", "1", "--rounds", "1"]);

    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();

    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--release"));
}
