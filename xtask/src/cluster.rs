//! A real Apache Kafka of several nodes, each of which can be killed, paused and restarted, and with root
//! also cut off from the network.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::kafka::{self, CLUSTER_ID, Jvm, LOGGING, START_WAIT, java};
use crate::network::Lan;
use crate::process::{self, Proc};

/// A running cluster; ended and its data removed when dropped.
pub struct Cluster {
    /// Addresses of all nodes, as clients want them.
    pub bootstrap: String,
    nodes: Vec<Node>,
    /// The network that they are on; without it they are on loopback.
    lan: Option<Lan>,
    _dir: TempDir,
}

struct Node {
    name: String,
    dir: PathBuf,
    child: Option<Proc>,
}

impl Cluster {
    /// Starts so many nodes, each broker and controller, and waits until they take requests.
    pub fn start(nodes: usize) -> Result<Cluster> {
        Cluster::start_on(None, nodes)
    }

    /// The same, each on a host of its own. Needs root.
    pub fn start_on_a_network(nodes: usize) -> Result<Cluster> {
        Cluster::start_on(Some(Lan::new(u8::try_from(nodes)?)?), nodes)
    }

    fn start_on(lan: Option<Lan>, nodes: usize) -> Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("keywatch-cluster.").tempdir()?;
        // Of the broker and of the controller.
        let places: Vec<(SocketAddrV4, SocketAddrV4)> = (0..nodes)
            .map(|node| {
                let [broker, controller] = match &lan {
                    Some(lan) => {
                        [9092, 9093].map(|port| SocketAddrV4::new(lan.address(node), port))
                    }
                    None => {
                        let port = || -> Result<_> {
                            Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, process::free_server_port()?))
                        };
                        [port()?, port()?]
                    }
                };
                Ok((broker, controller))
            })
            .collect::<Result<_>>()?;
        let join = |list: Vec<String>| list.join(",");
        let voters = places.iter().zip(1..).map(|((_, it), id)| format!("{id}@{it}")).collect();
        let voters = join(voters);
        let bootstrap = join(places.iter().map(|(broker, _)| broker.to_string()).collect());
        let replicas = nodes.min(3);
        let in_sync = if replicas == 3 { 2 } else { 1 };
        let mut cluster = Cluster { bootstrap, nodes: Vec::new(), lan, _dir: dir };
        for ((broker, controller), id) in places.iter().zip(1..) {
            let dir = cluster._dir.path().join(format!("node{id}"));
            fs::create_dir(&dir)?;
            let properties = format!(
                "process.roles=broker,controller\nnode.id={id}\n\
                 controller.quorum.voters={voters}\n\
                 listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
                 advertised.listeners=PLAINTEXT://{broker}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 controller.listener.names=CONTROLLER\nlog.dirs={}\n\
                 default.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n\
                 offsets.topic.num.partitions=3\noffsets.topic.replication.factor={replicas}\n\
                 transaction.state.log.num.partitions=3\n\
                 transaction.state.log.replication.factor={replicas}\n\
                 transaction.state.log.min.isr={in_sync}\n\
                 group.initial.rebalance.delay.ms=0\nbroker.session.timeout.ms=6000\n",
                dir.join("data").display()
            );
            fs::write(dir.join("server.properties"), properties)?;
            fs::write(dir.join("log4j2.properties"), LOGGING)?;
            let mut format = java(&dir, Jvm::Quick)?;
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]);
            format.arg("-c").arg(dir.join("server.properties"));
            process::run(&mut format).context("formatting Kafka's storage")?;
            cluster.nodes.push(Node { name: format!("kafka {id}"), dir, child: None });
        }
        for node in 0..nodes {
            cluster.launch(node)?;
        }
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// How many nodes there are, running or not.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Kills a node as a crash would.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        match self.nodes[node].child.take() {
            Some(mut child) => {
                // A stopped process takes no other signal; KILL it takes.
                child.kill()
            }
            None => Ok(()),
        }
    }

    /// Stops a node from running: its sockets stay open and nothing answers.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].child.as_ref().map_or(Ok(()), |child| child.signal(Signal::STOP))
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].child.as_ref().map_or(Ok(()), |child| child.signal(Signal::CONT))
    }

    /// Whether nodes can be cut off.
    pub fn is_on_a_network(&self) -> bool {
        self.lan.is_some()
    }

    /// Cuts a node off: what it sends and is sent gets lost.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.lan.as_ref().map_or(Ok(()), |lan| lan.cut(node))
    }

    /// Ends that.
    pub fn join(&self, node: usize) -> Result<()> {
        self.lan.as_ref().map_or(Ok(()), |lan| lan.mend(node))
    }

    /// Starts a node on its data, unless it runs.
    pub fn launch(&mut self, node: usize) -> Result<()> {
        if self.nodes[node].child.is_some() {
            return Ok(());
        }
        let mut broker: Command = java(&self.nodes[node].dir, Jvm::Quick)?;
        broker.arg("kafka.Kafka").arg(self.nodes[node].dir.join("server.properties"));
        let command = match &self.lan {
            None => broker,
            Some(lan) => {
                // `ip` becomes the program, so that its process is the broker's.
                let mut command = lan.on(node);
                command.arg(broker.get_program()).args(broker.get_args());
                command
            }
        };
        let node = &mut self.nodes[node];
        node.child = Some(Proc::spawn(&node.name, &command, &node.dir.join("broker.log"))?);
        Ok(())
    }

    /// Waits until every node that was started says that it is.
    pub fn wait_until_ready(&self) -> Result<()> {
        for node in &self.nodes {
            let Some(child) = &node.child else { continue };
            process::wait_until(&format!("{} starts", node.name), START_WAIT, || {
                Ok(child.output().contains("Kafka Server started"))
            })?;
        }
        Ok(())
    }

    /// kcat on this cluster.
    pub fn kcat(&self) -> Result<Command> {
        let mut command = kafka::kcat()?;
        command.args(["-b", &self.bootstrap]);
        Ok(command)
    }

    /// Every record of a topic in the order of each partition: its key, and its value.
    pub fn read_topic(&self, topic: &str) -> Result<Vec<(String, String)>> {
        let mut records = Vec::new();
        self.each_record(topic, |key, value| {
            records.push((key.to_owned(), value.to_owned()));
            Ok(())
        })?;
        Ok(records)
    }

    /// Shows every record of a topic, key and value, in the order of each partition. What belongs to no
    /// finished transaction is not there.
    pub fn each_record(
        &self,
        topic: &str,
        mut show: impl FnMut(&str, &str) -> Result<()>,
    ) -> Result<()> {
        let mut kcat = self.kcat()?;
        kcat.args(["-C", "-e", "-q", "-t", topic, "-K", "\t"]);
        kcat.args(["-X", "isolation.level=read_committed"]);
        kcat.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kcat.spawn().context("starting kcat")?;
        let out = child.stdout.take().context("kcat says nothing")?;
        // Of its complaints less than a pipe holds.
        for line in BufReader::new(out).lines() {
            if let Some((key, value)) = line?.split_once('\t') {
                show(key, value)?;
            }
        }
        let said = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "kcat could not read {topic}: {}", complaint.trim());
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Controllers that are left alone wait for the others when told to end.
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
            }
        }
    }
}
