//! What was learnt outlives a restart: a file that the Engine's state is read from and written to.

pub(crate) mod command;
mod feedback;
mod keeper;
mod store;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use monitor_core::engine::Engine;

use crate::config::Config;
use crate::fault::tell;
use crate::secret;

pub(crate) use keeper::Keeper;

/// What a run does about the baseline.
#[derive(Clone, Debug, Default)]
pub(crate) enum Baseline {
    /// Begins with nothing, and keeps nothing.
    #[default]
    None,
    /// Goes on from a file, and never writes it.
    Read(PathBuf),
    /// Goes on from a file, and writes it.
    Keep(PathBuf),
}

/// The file that is meant: that of the command line, of the config, or in the state directory.
pub(crate) fn path(named: Option<&Path>, config: &Config) -> PathBuf {
    let named = named.map(Path::to_owned).or_else(|| config.baseline.file.clone());
    named.unwrap_or_else(|| secret::state_dir().join("baseline.redb"))
}

/// What people say of alerts lies beside the baseline.
fn feedback_path(baseline: &Path) -> PathBuf {
    baseline.with_extension("feedback.jsonl")
}

/// Goes on from a file that must be whole; its feedback that no snapshot has yet counts too.
pub(crate) fn read(path: &Path, engine: &mut Engine) -> Result<()> {
    let Some(loaded) = store::load(path, engine)? else {
        bail!("no baseline: {}: `keywatch run` makes it", path.display());
    };
    feedback::Log::new(feedback_path(path), loaded.feedback).read(engine);
    tracing::debug!(keys = loaded.keys, file = %path.display(), "baseline read");
    Ok(())
}

/// Goes on from a file as far as there is one. A file that is damaged, or of a newer version, is put
/// aside, and learning begins anew: no baseline is worth a blind agent. `fresh` makes an Engine that
/// knows nothing. `None`: the file is another agent's, and nothing is kept.
pub(crate) fn open(
    path: &Path,
    engine: &mut Engine,
    fresh: impl FnOnce() -> Engine,
) -> Result<Option<Keeper>> {
    let Some(lock) = store::Lock::take(path)? else {
        let shown = path.display();
        tell(&format!(
            "the baseline is another agent's: {shown}: what is learnt here is not kept; give each its \
             own `file` under [baseline]"
        ));
        return Ok(None);
    };
    let seen = match store::load(path, engine) {
        Ok(None) => 0,
        Ok(Some(loaded)) => {
            tracing::info!(keys = loaded.keys, file = %path.display(), "baseline read");
            loaded.feedback
        }
        Err(refusal) => {
            *engine = fresh();
            let aside = store::put_aside(path)?;
            tell(&format!("{refusal}: put aside as {}, learning begins anew", aside.display()));
            0
        }
    };
    engine.note_changes();
    let log = feedback::Log::new(feedback_path(path), seen);
    Ok(Some(Keeper::new(path.to_owned(), lock, log)))
}
