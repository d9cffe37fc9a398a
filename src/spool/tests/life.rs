//! One life of a log: it starts, takes mail, has its disk fail for a while, and is closed or cut off.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::super::disk::Disk;
use super::super::disk::simulated::{Faults, Simulated};
use super::super::{
    Accepted, CommitError, Log, LogSettings, Meters, Purpose, ReadError, RecoveryError, Space,
    recover,
};
use super::messages::{
    append, append_by_parts, check_content, content, message, progress, read_on,
};
use super::model::Model;
use super::{Running, directory, octets_on_disk};

/// What is drawn for a life.
pub(super) struct Plan {
    pub(super) segment_octets: u64,
    pub(super) space_octets: u64,
    /// Whether the disk fails while the log recovers.
    pub(super) fails_at_start: bool,
    /// Whether it does later.
    pub(super) fails: bool,
    pub(super) clients: usize,
    pub(super) steps: usize,
    pub(super) octets_max: usize,
}

/// What the tasks of a life share.
struct Life {
    disk: Simulated,
    log: Log<Simulated>,
    model: Rc<RefCell<Model>>,
    /// The next message has this number.
    number: Rc<RefCell<u64>>,
    octets_max: usize,
    segment_octets: u64,
    fails: bool,
}

/// Lives, unless the disk goes down before. Panics if anything is not as the model says.
pub(super) async fn live(
    disk: Simulated,
    model: Rc<RefCell<Model>>,
    number: Rc<RefCell<u64>>,
    plan: Plan,
    mut random: Rng,
) {
    if plan.fails_at_start && model.borrow().has_begun() {
        // Not at the first start: a directory whose sync failed, and a kill before it was removed for that, leave
        // one that the next start takes for durable. Where syncs of directories fail, that is the least of it.
        disk.set_faults(faults(&mut random));
    }
    let recovered = match recover(&disk, directory(), Purpose::GoOn).await {
        Ok(recovered) => recovered,
        Err(RecoveryError::Disk(_)) if plan.fails_at_start => return,
        Err(error) => panic!("no recovery: {error}"),
    };
    disk.set_faults(Faults::default());
    assert_eq!(recovered.damages, [], "damage without a fault");
    model.borrow_mut().check(&recovered);
    check_own_files(
        &disk,
        &recovered
            .messages
            .iter()
            .map(|m| &m.accepted)
            .collect::<Vec<_>>(),
    );
    let again = recover(&disk, directory(), Purpose::Look).await.unwrap();
    assert_eq!(
        again.messages, recovered.messages,
        "the second look differs"
    );
    let settings = LogSettings {
        segment_octets: plan.segment_octets,
        space: Space::new(plan.space_octets),
        meters: Arc::new(Meters::default()),
        ..super::settings(0)
    };
    let messages = recovered.messages.clone();
    let Running { log, run } = Running::open(&disk, recovered, &settings).await;
    for found in &messages {
        check_content(&log, &found.accepted).await.unwrap();
    }
    let life = Rc::new(Life {
        disk: disk.clone(),
        log: log.clone(),
        model: Rc::clone(&model),
        number,
        octets_max: plan.octets_max,
        segment_octets: plan.segment_octets,
        fails: plan.fails,
    });
    let clients: Vec<_> = (0..plan.clients)
        .map(|_| tokio::task::spawn_local(Rc::clone(&life).client(plan.steps, random.fork())))
        .collect();
    // Who waits for a flush waits for the fault to end.
    let fair = disk.clone();
    let weather = tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            fair.set_faults(Faults::default());
            fair.set_capacity(u64::MAX);
        }
    });
    for client in clients {
        client.await.unwrap();
    }
    weather.abort();
    disk.set_faults(Faults::default());
    disk.set_capacity(u64::MAX);
    let healed = life.heals().await;
    let before = model.borrow().before();
    log.close();
    run.await.unwrap();
    model.borrow_mut().flushed(before);
    let late = message(0, 1);
    assert!(matches!(
        append(&log, &late).await,
        Err(CommitError::Closed)
    ));
    log.flush().await;
    let on_disk = octets_on_disk(&disk);
    assert_eq!(
        settings.space.taken(),
        on_disk,
        "space taken, and octets on disk"
    );
    if healed {
        // Files of refused messages go with the next success.
        check_own_files(&disk, &model.borrow().perhaps().iter().collect::<Vec<_>>());
    }
    let model = model.borrow();
    let expected = model.alive().len()..=model.perhaps().len();
    assert!(
        expected.contains(&log.alive()),
        "{} messages, not {expected:?}",
        log.alive()
    );
}

/// No file lies there that no message has.
fn check_own_files(disk: &Simulated, messages: &[&Accepted]) {
    let ids: BTreeSet<_> = messages
        .iter()
        .map(|accepted| accepted.id.to_string())
        .collect();
    for name in disk.names(&directory().large()).unwrap() {
        let name = name.into_string().unwrap();
        assert!(ids.contains(&name), "large/{name} is nobody's");
    }
}

impl Life {
    async fn client(self: Rc<Self>, steps: usize, mut random: Rng) {
        for _ in 0..steps {
            match random.u8(0..32) {
                0..12 => drop(self.append(&mut random).await),
                12..16 => self.note_progress(&mut random),
                16..24 => self.note_done(&mut random),
                24..26 => self.read(&mut random).await,
                26..28 => self.flush().await,
                28 => tokio::time::sleep(Duration::from_millis(random.u64(0..3000))).await,
                29 => drop(self.disk.list(directory().path()).await),
                _ if self.fails => self.change_faults(&mut random),
                _ => {}
            }
        }
    }

    async fn append(&self, random: &mut Rng) -> Result<(), CommitError> {
        let octets = match random.u8(0..16) {
            0 => 0,
            1..14 => random.usize(0..4096),
            _ => random.usize(0..=self.octets_max),
        };
        let number = self.number.replace_with(|number| *number + 1);
        let accepted = message(number, octets);
        if random.u8(0..16) == 0 {
            // The peer gives up, or there is no descriptor.
            if let Ok(mut own_file) = self.log.begin_own_file(accepted.id).await {
                let data = super::messages::mail_data(content(&accepted));
                let _ = own_file.append(data).await;
                match random.bool() {
                    true => own_file.discard().await,
                    false => drop(own_file),
                }
            }
            return Ok(());
        }
        let begun = self.model.borrow_mut().offer(&accepted);
        let is_large = octets as u64 > self.segment_octets / 2;
        let outcome = match random.u8(0..6) {
            _ if is_large => append_by_parts(&self.log, &accepted, random).await,
            0 => append_by_parts(&self.log, &accepted, random).await,
            1 => {
                let patience = random.u8(0..40);
                let append = append_by_parts(&self.log, &accepted, random);
                tokio::select! {
                    biased;
                    outcome = append => outcome,
                    // The session is gone before it hears: the message may be in or not.
                    () = yields(patience) => return Ok(()),
                }
            }
            _ => append(&self.log, &accepted).await,
        };
        let mut model = self.model.borrow_mut();
        match &outcome {
            Ok(()) => model.acknowledge(accepted.id, begun),
            Err(_) => model.refuse(accepted.id),
        }
        outcome
    }

    fn some_message(&self, random: &mut Rng) -> Option<Accepted> {
        let alive = self.model.borrow().alive();
        // Older ones more often, or no segment would ever be free.
        let end = match random.u8(0..3) {
            0 => alive.len(),
            _ => alive.len().min(8),
        };
        (end > 0).then(|| alive[random.usize(..end)].clone())
    }

    fn note_progress(&self, random: &mut Rng) {
        let Some(accepted) = self.some_message(random) else {
            return;
        };
        let number = self.number.replace_with(|number| *number + 1);
        let progress = progress(u32::try_from(number).unwrap(), &accepted, random);
        self.log.note_progress(accepted.id, &progress);
        self.model.borrow_mut().note_progress(accepted.id, progress);
    }

    fn note_done(&self, random: &mut Rng) {
        let times = random.u8(1..4);
        for _ in 0..times {
            let Some(accepted) = self.some_message(random) else {
                return;
            };
            self.log.note_done(accepted.id);
            self.model.borrow_mut().note_done(accepted.id);
        }
    }

    async fn read(&self, random: &mut Rng) {
        let Some(accepted) = self.some_message(random) else {
            return;
        };
        let mut reader = match self.log.read(&accepted).await {
            Ok(reader) => reader,
            Err(ReadError::Disk(_)) if self.fails => return,
            Err(error) => {
                assert!(
                    !self.model.borrow().is_alive(accepted.id),
                    "{}: {error}",
                    accepted.id
                );
                return;
            }
        };
        // Whatever becomes of the message meanwhile, a reader reads it to its end.
        tokio::time::sleep(Duration::from_millis(random.u64(0..2000))).await;
        let octets = read_on(&mut reader, random.usize(1000..100_000))
            .await
            .unwrap();
        assert!(
            octets == content(&accepted),
            "{} reads otherwise",
            accepted.id
        );
    }

    async fn flush(&self) {
        let before = self.model.borrow().before();
        self.log.flush().await;
        self.model.borrow_mut().flushed(before);
    }

    fn change_faults(&self, random: &mut Rng) {
        self.disk.set_capacity(u64::MAX);
        match random.u8(0..4) {
            0 => self.disk.set_faults(faults(random)),
            1 => self
                .disk
                .set_capacity(random.u64(0..4) << random.u8(16..20)),
            _ => self.disk.set_faults(Faults::default()),
        }
    }

    /// A while after the last fault a message goes in again, unless the spool has no space for it.
    async fn heals(&self) -> bool {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let number = self.number.replace_with(|number| *number + 1);
        let accepted = message(number, 100);
        let begun = self.model.borrow_mut().offer(&accepted);
        match append(&self.log, &accepted).await {
            Ok(()) => self.model.borrow_mut().acknowledge(accepted.id, begun),
            Err(CommitError::Full) => {
                self.model.borrow_mut().refuse(accepted.id);
                return false;
            }
            Err(error) => panic!("does not heal: {error}"),
        }
        // What it made superfluous is removed behind it.
        self.flush().await;
        true
    }
}

async fn yields(times: u8) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Some things fail sometimes, or all the time.
fn faults(random: &mut Rng) -> Faults {
    let mut rate = || match random.u8(0..8) {
        0 => 1.0,
        1 => 0.3,
        2 | 3 => 0.05,
        _ => 0.0,
    };
    Faults {
        short_writes: rate(),
        short_reads: rate(),
        write_errors: rate(),
        sync_errors: rate(),
        no_space: rate(),
        no_descriptor: rate(),
    }
}
