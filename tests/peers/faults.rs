//! Lines that cut, flip, truncate and stall, and processes that are killed: nothing is lost, nothing wrong is kept, the next try goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Served, forget, project, serve, whole};
use crate::world::World;

/// What happens to the byte at some place of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Cut,
    Flip,
    Stall,
}

/// A line between a client and a server that does one thing wrong, once, and is good from then on.
struct Line {
    host: String,
    plan: Arc<Mutex<(Fault, u64)>>,
    /// Bytes so far: to the server, and from it.
    passed: [Arc<AtomicU64>; 2],
    stop: Arc<AtomicBool>,
    /// Which direction is faulty: 0 to the server, 1 from it.
    direction: Arc<AtomicU64>,
}

impl Line {
    fn to(served: &Served) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            host: listener.local_addr().unwrap().to_string(),
            plan: Arc::new(Mutex::new((Fault::None, 0))),
            passed: Default::default(),
            stop: Arc::default(),
            direction: Arc::default(),
        };
        let (plan, passed, stop, direction) =
            (Arc::clone(&line.plan), line.passed.clone(), Arc::clone(&line.stop), Arc::clone(&line.direction));
        let target = served.host().to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                for (index, (from, to)) in [(&client, &server), (&server, &client)].into_iter().enumerate() {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (plan, passed, direction) =
                        (Arc::clone(&plan), Arc::clone(&passed[index]), Arc::clone(&direction));
                    std::thread::spawn(move || pass(from, to, index as u64, &plan, &passed, &direction));
                }
            }
        });
        line
    }

    /// From now on: this fault after so many bytes in this direction.
    fn plan(&self, direction: u64, fault: Fault, after: u64) {
        *self.plan.lock().unwrap() = (fault, after);
        self.direction.store(direction, Ordering::SeqCst);
        self.passed.iter().for_each(|passed| passed.store(0, Ordering::SeqCst));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    index: u64,
    plan: &Mutex<(Fault, u64)>,
    passed: &AtomicU64,
    direction: &AtomicU64,
) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let start = passed.fetch_add(count as u64, Ordering::SeqCst);
        let mut length = count;
        let mut fault = Fault::None;
        if direction.load(Ordering::SeqCst) == index {
            let mut plan = plan.lock().unwrap();
            if plan.0 != Fault::None && (start..start + count as u64).contains(&plan.1) {
                fault = plan.0;
                length = (plan.1 - start) as usize;
                plan.0 = Fault::None;
            }
        }
        match fault {
            Fault::None => {}
            Fault::Flip => {
                buffer[length] ^= 0x10;
                length = count;
            }
            Fault::Cut => {
                let _ = to.write_all(&buffer[..length]);
                break;
            }
            Fault::Stall => {
                let _ = to.write_all(&buffer[..length]);
                std::thread::sleep(Duration::from_secs(3));
                break;
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Places that are spread over so many bytes, the same every time.
fn places(total: u64, count: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count).map(move |number| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The first ones are in the heads, where a byte means most.
        if number < count / 4 { (state >> 33) % 600 } else { (state >> 33) % total.max(1) }
    })
}

#[test]
fn a_pull_survives_a_line_that_cuts_flips_and_stalls() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &["--anonymous", "read,write"]);
    let id = project(&world, "1");
    world.forge(["push", "shared", &served.address]).ok();
    let line = Line::to(&served);
    world.forge(["remote", "add", "line", &format!("http://{}", line.host)]).ok();
    forget(&world);
    line.plan(1, Fault::None, 0);
    world.forge(["pull", &id]).ok();
    let total = line.passed[1].load(Ordering::SeqCst);
    for (fault, count) in [(Fault::Cut, 12), (Fault::Flip, 16), (Fault::Stall, 3)] {
        for place in places(total, count) {
            forget(&world);
            line.plan(1, fault, place);
            let started = Instant::now();
            let first = world.forge(["pull", &id]);
            assert!(started.elapsed() < Duration::from_secs(60), "{fault:?} at {place}: {:?}", started.elapsed());
            if first.code != Some(0) {
                assert!([11, 12, 13].contains(&first.code.unwrap()), "{fault:?} at {place}: {}", first.stderr);
                assert_eq!(
                    first.stderr.matches("not asked again").count(),
                    usize::from(first.code != Some(12)),
                    "{}",
                    first.stderr
                );
                // What is here is right, and nothing is here that lacks something.
                world.forge(["verify"]).ok();
                world.forge(["pull", &id]).ok();
            }
            whole(&world, &id);
        }
    }
}

#[test]
fn a_push_survives_a_line_that_cuts_and_flips() {
    let (server, world) = (World::new(), World::new());
    let id = project(&world, "1");
    let total = {
        let served = serve(&server, &["--anonymous", "read,write"]);
        let line = Line::to(&served);
        world.forge(["push", "shared", &format!("http://{}", line.host)]).ok();
        line.passed[0].load(Ordering::SeqCst)
    };
    for (fault, count) in [(Fault::Cut, 10), (Fault::Flip, 12)] {
        for place in places(total, count) {
            let server = World::new();
            let served = serve(&server, &["--anonymous", "read,write", "--silence", "1s"]);
            let line = Line::to(&served);
            line.plan(0, fault, place);
            let address = format!("http://{}", line.host);
            let first = world.forge(["push", "shared", &address]);
            if first.code != Some(0) {
                assert!([11, 12, 13].contains(&first.code.unwrap()), "{fault:?} at {place}: {}", first.stderr);
                server.forge(["verify"]).ok();
                world.forge(["push", "shared", &address]).ok();
            }
            whole(&server, &id);
        }
    }
}

#[test]
fn a_large_file_goes_on_where_it_was_cut() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &["--anonymous", "read,write"]);
    let id = large(&world);
    let line = Line::to(&served);
    let address = format!("http://{}", line.host);
    // A push that is cut twice sends less than a piece twice each time.
    line.plan(0, Fault::Cut, 9 << 20);
    let receipt = world.forge(["push", "large", &address, "--json"]).json();
    let (sent, all) = (line.passed[0].load(Ordering::SeqCst), 24_u64 << 20);
    assert!(sent < all + (3 << 20), "{sent} of {all}: {receipt}");
    whole(&server, &id);
    forget(&world);
    line.plan(1, Fault::Cut, 13 << 20);
    world.forge(["pull", &id, &address]).ok();
    let taken = line.passed[1].load(Ordering::SeqCst);
    assert!(taken < all + (2 << 20), "{taken} of {all}");
    whole(&world, &id);
    // A puller that is killed leaves what it has to the next one.
    forget(&world);
    line.plan(1, Fault::Stall, 15 << 20);
    let mut child = world.command(["pull", &id, &address]).spawn().unwrap();
    while line.passed[1].load(Ordering::SeqCst) < 15 << 20 {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    line.plan(1, Fault::None, 0);
    world.forge(["pull", &id, &address]).ok();
    let taken = line.passed[1].load(Ordering::SeqCst);
    assert!(taken < 12 << 20, "{taken}");
    whole(&world, &id);
}

/// A formation with 24 MiB that do not compress.
fn large(world: &World) -> String {
    let path = world.write("large/noise", "");
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(3 << 20)
    .flatten()
    .collect();
    std::fs::write(path, noise).unwrap();
    world.write(
        "large.expr",
        "{ forge }:\nforge.formation { name = \"large\"; layers = [ (forge.files { \"/large\" = ./large; }) ]; command = [ \"true\" ]; }\n",
    );
    world.build("large.expr")
}

#[test]
fn whoever_is_killed_leaves_valid_stores() {
    let (server, world) = (World::new(), World::new());
    let id = large(&world);
    let mut killed = 0;
    for delay in [5, 20, 40, 60, 80, 110, 150] {
        let mut served = serve(&server, &["--anonymous", "read,write"]);
        let mut child = world
            .command(["push", "large", &served.address, "-q"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        // The pusher, or the server under it.
        if delay % 3 == 0 {
            child.kill().unwrap();
        } else {
            served.child.kill().unwrap();
            served.child.wait().unwrap();
            child.kill().unwrap();
        }
        killed += usize::from(!child.wait().unwrap().success());
        drop(served);
        server.forge(["verify"]).ok();
    }
    assert!(killed > 0);
    let served = serve(&server, &["--anonymous", "read,write"]);
    world.forge(["push", "large", &served.address]).ok();
    whole(&server, &id);
}

#[test]
fn a_peer_that_says_nothing_costs_a_moment() {
    let world = World::new();
    let id = project(&world, "1");
    let peer = format!("file://{}", world.path("peer").display());
    world.forge(["push", &id, &peer]).ok();
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    world
        .forge(["remote", "add", "silent", &format!("http://{}", silent.local_addr().unwrap()), "--priority", "1"])
        .ok();
    world.forge(["remote", "add", "nobody", "http://127.0.0.1:1", "--priority", "2"]).ok();
    world.forge(["remote", "add", "good", &peer]).ok();
    // It says a letter of its answer now and then, for as long as anybody listens.
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", slow.local_addr().unwrap());
    world.forge(["remote", "add", "slow", &address, "--priority", "3"]).ok();
    std::thread::spawn(move || {
        for mut client in slow.incoming().flatten() {
            std::thread::spawn(move || {
                while client.write_all(b"H").is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
    });
    // By name and by id: all are asked in one round, which takes 0.8 s; the rest of the bound is for a busy machine.
    for given in ["shared", id.as_str()] {
        forget(&world);
        let started = Instant::now();
        let pulled = world.forge(["pull", given]);
        assert_eq!(pulled.id(), id);
        assert!(started.elapsed() < Duration::from_secs(20), "{given}: {:?}", started.elapsed());
        assert_eq!(pulled.stderr.matches("not asked again").count(), 3, "{}", pulled.stderr);
    }
    // All being down is no error while what is needed is here.
    world.forge(["remote", "remove", "good"]).ok();
    world.forge(["export", &id, "--format", "tar", "-o", "-"]).ok();
    forget(&world);
    assert_eq!(project(&world, "1"), id);
}
