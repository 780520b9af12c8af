//! Published jars, fetched through Maven and kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{process, setup};

/// The folder `name` of the cache with jars and all that they need, fetched the first time. An artifact is
/// written `group:name:version`, or `group:name:version:classifier`.
///
/// # Errors
///
/// When they cannot be fetched or kept.
pub fn jars(name: &str, artifacts: &[&str]) -> Result<PathBuf> {
    let libs = setup::cache()?.join(name);
    if libs.is_dir() {
        return Ok(libs);
    }
    let work = tempfile::Builder::new().prefix("jars.").tempdir_in(setup::cache()?)?;
    let dependencies: Result<String> = artifacts.iter().map(|it| dependency(it)).collect();
    fs::write(
        work.path().join("pom.xml"),
        format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n\
             <modelVersion>4.0.0</modelVersion>\n\
             <groupId>keywatch</groupId><artifactId>{name}</artifactId><version>1</version>\n\
             <packaging>pom</packaging>\n<dependencies>{}</dependencies>\n</project>\n",
            dependencies?
        ),
    )?;
    let staged = work.path().join("libs");
    let mut maven = Command::new("mvn");
    maven.current_dir(work.path()).args(["-q", "-B", "dependency:copy-dependencies"]);
    maven.arg(format!("-DoutputDirectory={}", staged.display()));
    process::run(&mut maven).with_context(|| format!("fetching {name} through Maven"))?;
    // The rename makes the folder appear whole or not at all; someone else may have been quicker.
    if let Err(error) = fs::rename(&staged, &libs) {
        ensure!(libs.is_dir(), "keeping jars in {}: {error}", libs.display());
    }
    Ok(libs)
}

fn dependency(artifact: &str) -> Result<String> {
    let mut parts = artifact.split(':');
    let (Some(group), Some(name), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        anyhow::bail!("no artifact: {artifact}");
    };
    let classifier = parts.next().map(|it| format!("<classifier>{it}</classifier>"));
    Ok(format!(
        "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>\
         <version>{version}</version>{}</dependency>\n",
        classifier.unwrap_or_default()
    ))
}
