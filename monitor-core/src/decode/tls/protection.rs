//! Which keys open the next record of a direction, and how they are found again after a loss.

use super::opener::{Master, Opener};
use super::record::{HEADER_BYTES, Kind, Record};
use super::schedule::next_secret;
use super::secrets::{Label, Random, Secret, Secrets};
use super::suite::{self, Suite};
use super::version::Version;
use crate::input::Direction;
use crate::limits::Limits;

/// What both sides agreed on, as far as keys depend on it.
#[derive(Clone, Default)]
pub(super) struct Session {
    pub(super) client: Option<Offered>,
    pub(super) server: Option<Agreed>,
}

/// What the client's hello said.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) random: Random,
    /// The version of early data and the suites that it may be in; `None` when there is none.
    pub(super) early: Option<(Version, Vec<u16>)>,
}

/// What the server's hello said.
#[derive(Clone)]
pub(super) struct Agreed {
    pub(super) random: Random,
    pub(super) version: Version,
    pub(super) suite: Suite,
    pub(super) encrypt_then_mac: bool,
}

/// Which keys: those of TLS 1.3 follow one another, before it there is one kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Epoch {
    Early,
    Handshake,
    Application,
}

/// Keys with the number of the record that they open next.
struct Keys {
    epoch: Epoch,
    seq: u64,
    opener: Opener,
    /// Where the next ones come from (TLS 1.3).
    secret: Option<(Secret, Suite, Version)>,
}

/// One direction that is encrypted.
pub(super) struct Protection {
    sender: Direction,
    tls13: bool,
    keys: Option<Keys>,
    /// Keys of epochs before are not tried.
    stage: Epoch,
    /// Records since the last one that was opened, as far as they were seen.
    unopened: u32,
    /// Numbers that may still be tried in vain.
    trials: u32,
    /// Of those, bytes of bodies that nobody was told of: there were no keys yet.
    untold_bytes: u64,
}

/// A record that was opened.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) epoch: Epoch,
    /// In TLS 1.3, where the kind of the content is in the plaintext.
    pub(super) tls13: bool,
    /// Records that were not seen at all before it.
    pub(super) missed: u64,
    /// Bytes of bodies before it that could not be opened when they came.
    pub(super) untold_bytes: u64,
    /// What the protection of a record takes at least, bytes.
    pub(super) overhead_bytes: usize,
}

/// The smallest record that any cipher makes: its tag, and what content there must be.
const RECORD_BYTES_MIN: u64 = HEADER_BYTES as u64 + 9;
/// Numbers that are tried for one record at most: 16 MiB of records of usual size.
const REACH_MAX: u64 = 1024;
/// Records that may have come between what was seen in the clear and the first one that is encrypted.
const BEFORE_FIRST: u32 = 2;

impl Protection {
    /// From here on records of `sender` are encrypted; `late` when some may have been before.
    pub(super) fn new(
        sender: Direction,
        tls13: bool,
        stage: Epoch,
        late: bool,
        limits: &Limits,
    ) -> Protection {
        Protection {
            sender,
            tls13,
            keys: None,
            stage,
            unopened: if late { BEFORE_FIRST } else { 0 },
            trials: limits.tls_trials_max,
            untold_bytes: 0,
        }
    }

    /// Whether a record is encrypted: in TLS 1.3 those that are say that they are application data.
    pub(super) fn covers(&self, record: &Record) -> bool {
        !self.tls13 || record.kind == Kind::ApplicationData
    }

    /// Which keys are in use.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.keys.as_ref().map(|keys| keys.epoch)
    }

    /// Bytes of plaintext in a body of so many that cannot be opened; `None` when that is not known.
    pub(super) fn plaintext_bytes(&self, body: usize) -> Option<usize> {
        self.keys.as_ref().map(|keys| keys.opener.plaintext_bytes(body))
    }

    /// Keys are not to be hoped for any more, or what there is does not fit.
    pub(super) fn is_hopeless(&self, limits: &Limits) -> bool {
        self.trials == 0 || self.keys.is_none() && self.unopened > limits.tls_waiting_records_max
    }

    /// Whether keys were found at all.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some() || self.trials == 0
    }

    /// The sender goes over to the keys of a later epoch.
    pub(super) fn advance(&mut self, stage: Epoch) {
        if self.stage < stage {
            (self.keys, self.stage, self.unopened) = (None, stage, 0);
        }
    }

    /// The sender goes over to the next keys of its application data.
    pub(super) fn update(&mut self) {
        if let Some(keys) = &self.keys
            && keys.epoch == Epoch::Application
        {
            self.keys = keys.next();
            self.unopened = 0;
        }
    }

    /// A record is not there, or only in part.
    pub(super) fn miss(&mut self) {
        self.unopened = self.unopened.saturating_add(1);
        if let Some(keys) = &mut self.keys {
            keys.opener.miss(None);
        }
    }

    /// Whether a secret is still to come that may open what the present keys do not.
    pub(super) fn awaits(&self, session: &Session, secrets: &Secrets) -> bool {
        let Some(client) = &session.client else { return false };
        let lacks = |label| secrets.find(&client.random, label).is_none();
        match &session.server {
            Some(agreed) if agreed.version.is_13() => {
                self.epoch() != Some(Epoch::Application) && lacks(self.traffic_label())
            }
            Some(_) => self.keys.is_none() && lacks(Label::Master),
            None => self.keys.is_none() && lacks(Label::ClientEarly),
        }
    }

    fn traffic_label(&self) -> Label {
        match self.sender {
            Direction::ToServer => Label::ClientTraffic,
            Direction::ToClient => Label::ServerTraffic,
        }
    }

    /// Opens a record into `out`; one that is not opened is to be tried again, or [passed
    /// over](Protection::pass_over). `passed_bytes`: how many bytes of others are missing before it.
    pub(super) fn open(
        &mut self,
        record: &Record,
        passed_bytes: u64,
        session: &Session,
        secrets: &Secrets,
        out: &mut Vec<u8>,
    ) -> Option<Opened> {
        let bytes = record.bytes.as_slice();
        let lost = passed_bytes.div_ceil(RECORD_BYTES_MIN);
        let reach = u64::from(self.unopened).saturating_add(lost).min(REACH_MAX);
        let mut opened = None;
        if let Some(keys) = &mut self.keys {
            opened = keys.open(0..=reach, bytes, &mut self.trials, out);
        }
        if opened.is_none() {
            for mut next in self.successors(session, secrets) {
                opened = next.open(0..=reach, bytes, &mut self.trials, out);
                if opened.is_some() {
                    self.stage = next.epoch;
                    self.keys = Some(next);
                    break;
                }
            }
        }
        if let Some(opened) = &mut opened {
            opened.untold_bytes = if opened.missed > 0 { self.untold_bytes } else { 0 };
            opened.missed = opened.missed.saturating_sub(self.unopened.into());
            (self.unopened, self.untold_bytes) = (0, 0);
            self.trials = self.trials.saturating_add(1);
        }
        opened
    }

    /// A record stays as it is.
    pub(super) fn pass_over(&mut self, record: &Record) {
        if !record.uncertain {
            self.unopened = self.unopened.saturating_add(1);
            if self.keys.is_none() && record.kind == Kind::ApplicationData {
                self.untold_bytes += record.bytes.len() as u64;
            }
        }
        if let Some(keys) = &mut self.keys {
            keys.opener.miss(Some(&record.bytes));
        }
    }

    /// Keys that may open what the present ones do not.
    fn successors(&self, session: &Session, secrets: &Secrets) -> Vec<Keys> {
        let Some(client) = &session.client else { return Vec::new() };
        match &self.keys {
            Some(keys) if keys.epoch == Epoch::Application => keys.next().into_iter().collect(),
            keys => {
                let after = keys.as_ref().map(|keys| keys.epoch);
                let wanted = |epoch| self.stage <= epoch && after.is_none_or(|after| after < epoch);
                [Epoch::Early, Epoch::Handshake, Epoch::Application]
                    .into_iter()
                    .filter(|epoch| wanted(*epoch))
                    .flat_map(|epoch| self.keys_of(epoch, client, &session.server, secrets))
                    .collect()
            }
        }
    }

    fn keys_of(
        &self,
        epoch: Epoch,
        client: &Offered,
        server: &Option<Agreed>,
        secrets: &Secrets,
    ) -> Vec<Keys> {
        let tls13 = |label, suite: Suite, version| {
            let secret = secrets.find(&client.random, label)?;
            Some(Keys {
                epoch,
                seq: 0,
                opener: Opener::tls13(suite, version, secret)?,
                secret: Some((secret.clone(), suite, version)),
            })
        };
        match (epoch, server) {
            (Epoch::Early, _) => {
                let Some((version, suites)) = &client.early else { return Vec::new() };
                let suites = suites.iter().filter_map(|id| suite::find(*id)).filter(|it| it.tls13);
                suites.filter_map(|suite| tls13(Label::ClientEarly, suite, *version)).collect()
            }
            (Epoch::Handshake, Some(agreed)) if agreed.version.is_13() => {
                let label = match self.sender {
                    Direction::ToServer => Label::ClientHandshake,
                    Direction::ToClient => Label::ServerHandshake,
                };
                tls13(label, agreed.suite, agreed.version).into_iter().collect()
            }
            (Epoch::Application, Some(agreed)) if agreed.version.is_13() => {
                tls13(self.traffic_label(), agreed.suite, agreed.version).into_iter().collect()
            }
            (Epoch::Application, Some(agreed)) => {
                let Some(secret) = secrets.find(&client.random, Label::Master) else {
                    return Vec::new();
                };
                let Agreed { random, version, suite, encrypt_then_mac } = agreed;
                let master = Master { secret, client: &client.random, server: random };
                let opener =
                    Opener::tls12(*suite, *version, *encrypt_then_mac, &master, self.sender);
                let keys = |opener| Keys { epoch, seq: 0, opener, secret: None };
                opener.map(keys).into_iter().collect()
            }
            (Epoch::Handshake | Epoch::Application, _) => Vec::new(),
        }
    }
}

impl Keys {
    /// Tries the numbers in reach, counted from the next one.
    fn open(
        &mut self,
        reach: std::ops::RangeInclusive<u64>,
        record: &[u8],
        trials: &mut u32,
        out: &mut Vec<u8>,
    ) -> Option<Opened> {
        for missed in reach {
            if *trials == 0 {
                return None;
            }
            let seq = self.seq.checked_add(missed)?;
            if self.opener.open(seq, record, out) {
                self.seq = seq.checked_add(1)?;
                let overhead_bytes = self.opener.overhead_bytes();
                let tls13 = self.secret.is_some();
                let epoch = self.epoch;
                return Some(Opened { epoch, tls13, missed, untold_bytes: 0, overhead_bytes });
            }
            *trials -= 1;
        }
        None
    }

    /// The keys after an update (RFC 8446, 7.2).
    fn next(&self) -> Option<Keys> {
        let (secret, suite, version) = self.secret.as_ref()?;
        let secret = next_secret(suite.hash, secret, version.is_before_draft(20))?;
        let opener = Opener::tls13(*suite, *version, &secret)?;
        Some(Keys { epoch: self.epoch, seq: 0, opener, secret: Some((secret, *suite, *version)) })
    }
}
