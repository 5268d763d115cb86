//! Runs the suite over the backends that are broken on purpose, and says for each acceptance id which it rejects and which it accepts, as a
//! line of JSON: what `cargo xtask behaviours` reads.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

use hitbox_testkit::suite::BEHAVIOURS;

#[tokio::main(worker_threads = 2)]
async fn main() {
    for behaviour in BEHAVIOURS {
        let rejects: Vec<String> = (behaviour.rejects)().into_iter().map(|subject| subject.name).collect();
        let accepts = behaviour.accepted_wrongly().await;
        let said = serde_json::json!({ "id": behaviour.id, "name": behaviour.name, "rejects": rejects, "accepts": accepts });
        println!("{said}");
    }
}
