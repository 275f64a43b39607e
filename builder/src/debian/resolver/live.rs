//! Against whatever this machine's apt is configured with; run by hand.

use super::*;
use crate::world::World;

/// `FORGE_TEST_WISHES="git curl" cargo test -p builder -- --ignored --nocapture live` prints name and version of each package.
#[test]
#[ignore = "asks this machine's own mirrors"]
fn live_closure() {
    let variables = ["http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "FORGE_DEBIAN_MIRROR"];
    let environment =
        variables.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let world = World::on(|_| crate::Machine { environment, ..Default::default() });
    let of = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    for wishes in of("FORGE_TEST_WISHES", "python3").split(';') {
        let parameters = BTreeMap::from([
            ("suite".to_owned(), Value::from(of("FORGE_TEST_SUITE", "bookworm"))),
            ("architecture".to_owned(), Value::from("amd64")),
            ("packages".to_owned(), wishes.split(',').map(str::trim).collect::<Vec<_>>().into()),
            ("recommends".to_owned(), Value::from(of("FORGE_TEST_RECOMMENDS", "") == "yes")),
        ]);
        let started = std::time::Instant::now();
        let answer = crate::resolve::resolve(&world.builder(), &LockRequest { kind: "debian".to_owned(), parameters });
        eprintln!("# {wishes}: {:?}", started.elapsed());
        match answer {
            Ok(entry) => entry.records.iter().for_each(|record| {
                let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
                println!("{} {} {}", text("name"), text("version"), text("suite"));
            }),
            Err(error) => println!("{error}\n{error:#?}"),
        }
    }
    world.notes().iter().for_each(|note| eprintln!("note: {note}"));
}

/// `FORGE_TEST_URL=https://… cargo test -p builder -- --ignored --nocapture live_url` prints size and digest.
#[test]
#[ignore = "asks whatever address it is given"]
fn live_url() {
    let environment = std::env::vars().collect();
    let world = World::on(|_| crate::Machine { environment, ..Default::default() });
    let url = std::env::var("FORGE_TEST_URL").expect("FORGE_TEST_URL is set");
    let request =
        LockRequest { kind: "url".to_owned(), parameters: BTreeMap::from([("url".to_owned(), Value::from(url))]) };
    println!("{:?}", crate::resolve::resolve(&world.builder(), &request).map(|entry| entry.records));
}
