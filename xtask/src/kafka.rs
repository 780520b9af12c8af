//! A real single-node Apache Kafka on loopback, from its published Maven jars.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::process::{self, Proc};
use crate::{maven, setup};

/// Version of Kafka that is started.
pub const VERSION: &str = "4.1.0";
/// The version of Log4j that this Kafka ships with; its SLF4J binding is not among its dependencies.
const LOG4J_VERSION: &str = "2.24.3";
/// A cold Java on a busy two-core machine was ready within 10 s; a slow one gets six times that.
pub(crate) const START_WAIT: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER_ID: &str = "a2V5d2F0Y2gtZGVtby0wMQ";

/// A running broker; ended and its data removed when dropped.
pub struct Kafka {
    /// Address of the broker: `127.0.0.1:PORT`.
    pub bootstrap: String,
    /// The same where it was started with [`Kafka::start_secured`].
    pub secured: Option<Secured>,
    home: Home,
    child: Option<Proc>,
    _dir: TempDir,
}

/// kcat, without its arguments yet.
pub fn kcat() -> Result<Command> {
    setup::find("kcat").map(Command::new).context("no kcat (mend: cargo xtask setup)")
}

impl Kafka {
    /// Starts a broker on a free loopback port and waits until it takes requests.
    pub fn start() -> Result<Kafka> {
        Kafka::start_on(process::free_port()?)
    }

    /// The same, for measuring: its Java compiles as well as it can.
    pub fn start_for_speed() -> Result<Kafka> {
        Kafka::launched(process::free_port()?, false, "", Jvm::Fast)
    }

    /// Process id of the broker.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Proc::pid).context("the broker does not run")
    }

    /// The same on a given port.
    pub fn start_on(port: u16) -> Result<Kafka> {
        Kafka::launched(port, false, "", Jvm::Quick)
    }

    /// Starts a broker that is also reached over TLS: with SCRAM, and with client certificates.
    /// `properties` are more lines for its config.
    pub fn start_secured(properties: &str) -> Result<Kafka> {
        Kafka::launched(process::free_port()?, true, properties, Jvm::Quick)
    }

    fn launched(port: u16, is_secured: bool, properties: &str, jvm: Jvm) -> Result<Kafka> {
        let dir = tempfile::Builder::new().prefix("keywatch-kafka.").tempdir()?;
        let secured = is_secured.then(|| Secured::prepare(dir.path())).transpose()?;
        let home = Home::prepare(dir.path(), port, secured.as_ref(), properties, jvm)?;
        let bootstrap = home.bootstrap();
        let mut kafka = Kafka { bootstrap, secured, home, child: None, _dir: dir };
        kafka.restart()?;
        Ok(kafka)
    }

    /// Runs kcat with some arguments and returns what it prints.
    pub fn kcat(&self, args: &[&str]) -> Result<String> {
        process::run(kcat()?.args(args))
    }

    /// Kills the broker as a crash would; its data stays.
    pub fn kill(&mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let log = self.home.dir.join("broker.log");
        let mut child = Proc::spawn("kafka", &self.home.broker()?, &log)?;
        let deadline = Instant::now() + START_WAIT;
        child.wait_for_listener(self.home.address(), START_WAIT)?;
        // The socket opens before the controller has let the broker in.
        let left = deadline.saturating_duration_since(Instant::now());
        process::wait_until("Kafka's broker registers", left, || {
            Ok(child.output().contains("Kafka Server started"))
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Every value of a topic, read from the beginning by a consumer that is not ours: kcat, or
    /// else Kafka's own.
    pub fn read_topic(&self, topic: &str) -> Result<Vec<String>> {
        let text = match setup::find("kcat") {
            Some(kcat) => process::run(
                Command::new(kcat)
                    .args(["-b", &self.bootstrap, "-t", topic])
                    .args(["-C", "-e", "-q"]),
            )?,
            None => self.console_consumer(topic)?,
        };
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Has the broker delete every record of a topic, as it does with old ones.
    pub fn forget(&self, topic: &str) -> Result<()> {
        let metadata = self.kcat(&["-b", &self.bootstrap, "-L", "-J", "-t", topic])?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
        let partitions = metadata["topics"][0]["partitions"].as_array().context("no topic")?;
        // -1: up to the end.
        let places: Vec<_> = partitions
            .iter()
            .map(|it| serde_json::json!({"topic": topic, "partition": it["partition"], "offset": -1}))
            .collect();
        let file = self.home.dir.join("forget.json");
        fs::write(&file, serde_json::json!({"version": 1, "partitions": places}).to_string())?;
        let mut java = java(&self.home.dir, Jvm::Quick)?;
        java.arg("org.apache.kafka.tools.DeleteRecordsCommand");
        java.args(["--bootstrap-server", &self.bootstrap, "--offset-json-file"]).arg(&file);
        process::run(&mut java).context("deleting records").map(drop)
    }

    fn console_consumer(&self, topic: &str) -> Result<String> {
        let mut java = java(&self.home.dir, Jvm::Quick)?;
        java.args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--from-beginning"]);
        java.args(["--bootstrap-server", &self.bootstrap, "--topic", topic]);
        // It ends with an error once nothing has come for so long: that is its only end of topic.
        java.args(["--timeout-ms", "10000"]);
        let output = java.output().context("starting Kafka's console consumer")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Why no broker can be started here, if so.
pub fn missing() -> Option<String> {
    let absent: Vec<&str> =
        ["java", "mvn"].into_iter().filter(|program| setup::find(program).is_none()).collect();
    (!absent.is_empty()).then(|| {
        format!(
            "{} missing (mend: apt-get install openjdk-17-jre-headless maven)",
            absent.join(" and ")
        )
    })
}

/// What `start` leaves behind for `status` and `stop`.
#[derive(Serialize, Deserialize)]
struct Background {
    pid: u32,
    bootstrap: String,
    dir: PathBuf,
}

/// `kafka start`: a broker that stays until `kafka stop`.
pub fn start(port: Option<u16>) -> Result<()> {
    if let Some(running) = background()? {
        bail!("Kafka runs already on {} (mend: cargo xtask kafka stop)", running.bootstrap);
    }
    let port = port.map_or_else(process::free_port, Ok)?;
    let dir = tempfile::Builder::new().prefix("keywatch-kafka.").tempdir()?.keep();
    let home = Home::prepare(&dir, port, None, "", Jvm::Quick)?;
    let log = fs::File::create(dir.join("broker.log"))?;
    let mut command = home.broker()?;
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("starting Kafka")?;
    let running = Background { pid: child.id(), bootstrap: home.bootstrap(), dir: dir.clone() };
    fs::write(state_file()?, serde_json::to_vec(&running)?)?;
    process::wait_until("Kafka starts", START_WAIT, || {
        let output = fs::read_to_string(dir.join("broker.log")).unwrap_or_default();
        ensure!(
            child.try_wait()?.is_none(),
            "Kafka ended early; its log: {}/broker.log",
            dir.display()
        );
        Ok(output.contains("Kafka Server started"))
    })?;
    println!("Kafka {VERSION} on {}; log {}/broker.log", running.bootstrap, dir.display());
    Ok(())
}

/// `kafka stop`.
pub fn stop() -> Result<()> {
    let Some(running) = background()? else {
        println!("Kafka does not run.");
        return Ok(());
    };
    let pid = i32::try_from(running.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.context("the state file holds no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    process::wait_until("Kafka ends", START_WAIT, || Ok(!is_ours(&running)))?;
    let _ = fs::remove_dir_all(&running.dir);
    fs::remove_file(state_file()?)?;
    println!("Kafka on {} stopped.", running.bootstrap);
    Ok(())
}

/// `kafka status`.
pub fn status() -> Result<()> {
    match background()? {
        Some(running) => {
            println!("Kafka runs on {} (pid {})", running.bootstrap, running.pid)
        }
        None => println!("Kafka does not run."),
    }
    Ok(())
}

/// `kafka run`: a broker in the foreground until Ctrl-C.
pub fn run(port: Option<u16>) -> Result<()> {
    process::catch_interrupts()?;
    let kafka = Kafka::start_on(port.map_or_else(process::free_port, Ok)?)?;
    println!("Kafka {VERSION} on {}; Ctrl-C ends it.", kafka.bootstrap);
    while process::check_interrupted().is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn background() -> Result<Option<Background>> {
    let file = state_file()?;
    let Ok(text) = fs::read(&file) else { return Ok(None) };
    let running: Option<Background> = serde_json::from_slice(&text).ok();
    let running = running.filter(is_ours);
    if running.is_none() {
        let _ = fs::remove_file(&file);
    }
    Ok(running)
}

/// Whether the process is still the broker that was started, not a later one with its number. A
/// child that ended and was not waited for has an empty command line.
fn is_ours(running: &Background) -> bool {
    let cmdline = fs::read(format!("/proc/{}/cmdline", running.pid)).unwrap_or_default();
    String::from_utf8_lossy(&cmdline).contains(&*running.dir.to_string_lossy())
}

fn state_file() -> Result<PathBuf> {
    Ok(setup::cache()?.join("kafka.json"))
}

/// A broker's folder: its config, log and data.
struct Home {
    dir: PathBuf,
    port: u16,
    jvm: Jvm,
}

impl Home {
    /// Writes the config and formats the storage.
    fn prepare(
        dir: &Path,
        port: u16,
        secured: Option<&Secured>,
        properties: &str,
        jvm: Jvm,
    ) -> Result<Home> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("port {port} cannot be used; choose another with --port"))?;
        if let Some(missing) = missing() {
            bail!("Kafka cannot start: {missing}");
        }
        let home = Home { dir: dir.to_owned(), port, jvm };
        let controller = process::free_port()?;
        let data = dir.join("data");
        let (listeners, map, more) = match secured {
            None => (String::new(), "", String::new()),
            Some(secured) => (
                format!(",SCRAM://{},MUTUAL://{}", secured.scram, secured.mutual),
                ",SCRAM:SASL_SSL,MUTUAL:SSL",
                secured.properties(),
            ),
        };
        fs::write(
            dir.join("server.properties"),
            format!(
                "process.roles=broker,controller\n\
                 node.id=1\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{map}\n\
                 controller.listener.names=CONTROLLER\n\
                 log.dirs={}\n\
                 num.partitions=1\n\
                 offsets.topic.num.partitions=1\n\
                 offsets.topic.replication.factor=1\n\
                 transaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\n\
                 group.initial.rebalance.delay.ms=0\n\
                 {more}{properties}",
                data.display()
            ),
        )?;
        fs::write(dir.join("log4j2.properties"), LOGGING)?;
        let mut format = java(dir, Jvm::Quick)?;
        format.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID]);
        format.arg("-c").arg(dir.join("server.properties"));
        if secured.is_some() {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.arg("--add-scram");
                format.arg(format!("{mechanism}=[name={USER},password={PASSWORD}]"));
            }
        }
        process::run(&mut format).context("formatting Kafka's storage")?;
        Ok(home)
    }

    fn broker(&self) -> Result<Command> {
        let mut command = java(&self.dir, self.jvm)?;
        command.arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        Ok(command)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn bootstrap(&self) -> String {
        self.address().to_string()
    }
}

/// User of the SCRAM listener, with a made-up password.
pub const USER: &str = "agent";
/// See [`USER`].
pub const PASSWORD: &str = "not-a-real-password";

/// Listeners over TLS, and the certificates for them in PEM files.
pub struct Secured {
    /// Address that wants a user and a password.
    pub scram: SocketAddr,
    /// Address that wants a client certificate.
    pub mutual: SocketAddr,
    dir: PathBuf,
}

impl Secured {
    /// Makes certificates in a folder of their own in `dir`.
    pub fn prepare(dir: &Path) -> Result<Secured> {
        let at = || -> Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], process::free_port()?)))
        };
        let secured = Secured { scram: at()?, mutual: at()?, dir: dir.join("certificates") };
        fs::create_dir_all(&secured.dir)?;
        secured.authority("ca")?;
        secured.authority("other-ca")?;
        let day = ["-days", "1"];
        secured.certificate("broker", "ca", &day)?;
        secured.certificate("client", "ca", &day)?;
        secured.certificate("stranger", "other-ca", &day)?;
        let past = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"];
        secured.certificate("expired", "ca", &past)?;
        Ok(secured)
    }

    /// A PEM file: the certificate or, as `NAME.key`, the key of `ca`, `other-ca`, `client`,
    /// `stranger` (signed by `other-ca`) and `expired`.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn authority(&self, name: &str) -> Result<()> {
        let mut openssl = self.openssl();
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-days", "1", "-subj", &format!("/CN=keywatch test {name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        process::run(&mut openssl).map(drop)
    }

    fn certificate(&self, name: &str, by: &str, validity: &[&str]) -> Result<()> {
        let mut request = self.openssl();
        request.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        request.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"]);
        request.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.csr")]);
        process::run(&mut request)?;
        // `openssl x509` of Debian 12 cannot set a time in the past, `openssl ca` can.
        let config = format!(
            "[ca]\ndefault_ca=it\n[it]\ndatabase={by}.index\nnew_certs_dir=.\nserial={by}.serial\n\
             certificate={by}.pem\nprivate_key={by}.key\ndefault_md=sha256\npolicy=any\n\
             copy_extensions=copy\nunique_subject=no\n[any]\ncommonName=supplied\n"
        );
        fs::write(self.dir.join(format!("{by}.conf")), config)?;
        fs::write(self.dir.join(format!("{by}.index")), "")?;
        fs::write(self.dir.join(format!("{by}.serial")), "01\n")?;
        let mut sign = self.openssl();
        sign.args(["ca", "-batch", "-notext", "-config", &format!("{by}.conf")]);
        sign.args(validity).args(["-in", &format!("{name}.csr"), "-out", &format!("{name}.pem")]);
        process::run(&mut sign)?;
        // Kafka wants the key and the chain in one file.
        let read = |file: String| fs::read_to_string(self.dir.join(file));
        let both = read(format!("{name}.key"))? + &read(format!("{name}.pem"))?;
        fs::write(self.dir.join(format!("{name}.both")), both)?;
        Ok(())
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.dir);
        command
    }

    fn properties(&self) -> String {
        let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        format!(
            "ssl.keystore.type=PEM\nssl.keystore.location={}\n\
             ssl.truststore.type=PEM\nssl.truststore.location={}\n\
             sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.scram.scram-sha-256.sasl.jaas.config={login}\n\
             listener.name.scram.scram-sha-512.sasl.jaas.config={login}\n\
             listener.name.mutual.ssl.client.auth=required\n",
            self.file("broker.both"),
            self.file("ca.pem"),
        )
    }
}

pub(crate) const LOGGING: &str = "\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c{1})%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
";

/// How Java compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jvm {
    /// Soon, and not very well: for what is started often.
    Quick,
    /// As in production.
    Fast,
}

/// Java with Kafka's jars on its class path. Half a gigabyte of heap is plenty for one node.
pub(crate) fn java(dir: &Path, jvm: Jvm) -> Result<Command> {
    let mut command = Command::new("java");
    command.args(["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC"]);
    if jvm == Jvm::Quick {
        command.arg("-XX:TieredStopAtLevel=1");
    }
    command.arg("-cp");
    command.arg(jars()?.join("*"));
    let config = dir.join("log4j2.properties");
    command.arg(format!("-Dlog4j2.configurationFile={}", config.display()));
    Ok(command)
}

/// The folder with Kafka's jars, fetched through Maven the first time.
pub fn jars() -> Result<PathBuf> {
    maven::jars(
        // Another name than before there were the tools.
        &format!("kafka-{VERSION}-with-tools"),
        &[
            &format!("org.apache.kafka:kafka_2.13:{VERSION}"),
            &format!("org.apache.kafka:kafka-tools:{VERSION}"),
            &format!("org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}"),
        ],
    )
}
