//! The suite is itself tested: each check rejects the broken subjects shipped for it, and accepts a
//! sound one.

use hitbox_testkit::suite::BEHAVIOURS;
use hitbox_testkit::{Subject, broken};

#[tokio::test]
async fn every_check_rejects_its_broken_subjects() {
    let mut wrong = Vec::new();
    for behaviour in BEHAVIOURS {
        eprintln!("{}", behaviour.name);
        for name in behaviour.accepted_wrongly().await {
            wrong.push(format!("{} accepts {name}", behaviour.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_check_accepts_sound_subjects() {
    let sound = broken::sound();
    let subjects = [Subject::leaf("memory", sound.clone()), Subject::pair("memory/memory", &sound, &sound)];
    let mut wrong = Vec::new();
    for behaviour in BEHAVIOURS {
        eprintln!("{}", behaviour.name);
        for subject in &subjects {
            if let Err(what) = behaviour.run(subject).await {
                wrong.push(format!("{} on {}: {what}", behaviour.name, subject.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
