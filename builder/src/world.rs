//! What tests of builders and resolvers work with: a temporary store, a machine that is configured with nothing, and nobody to run steps.

use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex};

use executor::{Backend, Outcome, Sandbox};
use store::Store;

use crate::fetch::Fetcher;
use crate::{Builder, Event, Machine, Reporter};

/// Owns what a [`Builder`] borrows.
pub struct World {
    directory: tempfile::TempDir,
    /// The machine; change it before the first [`World::builder`].
    pub machine: Machine,
    store: Store,
    fetcher: Fetcher,
    notes: Notes,
    /// Set it to interrupt.
    pub interrupt: Arc<AtomicI32>,
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Reporter for Notes {
    fn report(&self, event: Event<'_>) {
        if let Event::Note(note) = event {
            self.0.lock().unwrap().push(note.to_owned());
        }
    }
}

struct Nobody;

impl Backend for Nobody {
    fn name(&self) -> &'static str {
        "nobody"
    }

    fn run(&self, sandbox: &Sandbox) -> executor::Result<Outcome> {
        panic!("nothing is to be run here, and not {:?}", sandbox.command)
    }
}

impl World {
    /// A world without mirrors; its machine's root is an empty directory.
    pub fn new() -> Self {
        Self::on(|root| Machine { root: root.to_owned(), ..Machine::default() })
    }

    /// A world on a machine that is configured like this, given an empty directory.
    pub fn on(machine: impl FnOnce(&std::path::Path) -> Machine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let machine = machine(&root);
        Self {
            store: Store::open(directory.path().join("store")).unwrap(),
            fetcher: Fetcher::new(&machine).unwrap(),
            machine,
            directory,
            notes: Notes::default(),
            interrupt: Arc::default(),
        }
    }

    /// A builder in this world.
    pub fn builder(&self) -> Builder<'_> {
        Builder {
            store: &self.store,
            backend: &Nobody,
            machine: &self.machine,
            reporter: &self.notes,
            fetcher: &self.fetcher,
            jobs: 2,
            cores: None,
            keep_going: false,
            keep_failed: false,
            interrupt: Arc::clone(&self.interrupt),
            work: None,
            peers: None,
            made: None,
        }
    }

    /// What was noted so far.
    pub fn notes(&self) -> Vec<String> {
        self.notes.0.lock().unwrap().clone()
    }

    /// How many blobs the store holds.
    pub fn blobs(&self) -> usize {
        let files = |directory: std::path::PathBuf| {
            std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        files(self.directory.path().join("store/blobs")).into_iter().map(|directory| files(directory).len()).sum()
    }
}
