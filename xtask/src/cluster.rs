//! A real Apache Kafka of several nodes on loopback; each can be killed, paused and restarted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::kafka::{CLUSTER_ID, LOGGING, START_WAIT, java};
use crate::process::{self, Proc};
use crate::setup;

/// A running cluster; ended and its data removed when dropped.
pub struct Cluster {
    /// Addresses of all nodes, as clients want them.
    pub bootstrap: String,
    nodes: Vec<Node>,
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
        let dir = tempfile::Builder::new().prefix("keywatch-cluster.").tempdir()?;
        let ports: Vec<(u16, u16)> = (0..nodes)
            .map(|_| Ok((process::free_server_port()?, process::free_server_port()?)))
            .collect::<Result<_>>()?;
        let join = |list: Vec<String>| list.join(",");
        let voters =
            ports.iter().zip(1..).map(|((_, port), id)| format!("{id}@127.0.0.1:{port}")).collect();
        let voters = join(voters);
        let bootstrap = join(ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect());
        let replicas = nodes.min(3);
        let in_sync = if replicas == 3 { 2 } else { 1 };
        let mut cluster = Cluster { bootstrap, nodes: Vec::new(), _dir: dir };
        for ((port, controller), id) in ports.iter().zip(1..) {
            let dir = cluster._dir.path().join(format!("node{id}"));
            fs::create_dir(&dir)?;
            let properties = format!(
                "process.roles=broker,controller\nnode.id={id}\n\
                 controller.quorum.voters={voters}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
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
            let mut format = java(&dir)?;
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

    /// Starts a node on its data, unless it runs.
    pub fn launch(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        if node.child.is_some() {
            return Ok(());
        }
        let mut command: Command = java(&node.dir)?;
        command.arg("kafka.Kafka").arg(node.dir.join("server.properties"));
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
        let kcat = setup::find("kcat").context("no kcat (mend: cargo xtask setup)")?;
        let mut command = Command::new(kcat);
        command.args(["-b", &self.bootstrap]);
        Ok(command)
    }

    /// Every value of a topic in the order of each partition: its key, a tab, and the value. What
    /// belongs to no finished transaction is not there.
    pub fn read_topic(&self, topic: &str) -> Result<Vec<(String, String)>> {
        let mut kcat = self.kcat()?;
        kcat.args([
            "-C",
            "-e",
            "-q",
            "-t",
            topic,
            "-K",
            "\t",
            "-X",
            "isolation.level=read_committed",
        ]);
        let text = process::run(&mut kcat)?;
        let pair = |line: &str| line.split_once('\t').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Ok(text.lines().filter_map(pair).collect())
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
