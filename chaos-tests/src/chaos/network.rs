//! The topology: a switch with a port for each node and one for the clients, and cuts made inside the switch.
//!
//! ```text
//!   node1   node2   node3   clients      one namespace each, eth0 = 10.77.0.x
//!     |n0     |n1     |n2     |
//!     b0      b1      b2      |        a bridge of two ports each; or a slow cable in its place
//!     |m0     |m1     |m2     |
//!     |p0     |p1     |p2     |pc
//!     +-------+---+---+-------+
//!              switch (bridge br0, nft)
//! ```
//!
//! No namespace has a name, so runs overlap and nothing is left when the last process is gone. A cut is an nft table of
//! its own in the switch: no node can notice how it is made. Its counters are the witness.

use crate::chaos::cable::Cable;
use crate::chaos::netns::Netns;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The network of all nodes, as pg_hba.conf writes it.
pub const NETWORK: &str = "10.77.0.0/24";

/// The clients, as pg_hba.conf writes them.
pub const CLIENTS: &str = "10.77.0.100/32";

/// Who sits at a port of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The node with this index.
    Node(usize),
    /// The clients, and this program.
    Clients,
}

impl Port {
    fn device(self) -> String {
        match self {
            Self::Node(i) => format!("p{i}"),
            Self::Clients => "pc".into(),
        }
    }
}

/// What becomes of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toll {
    /// All are lost.
    All,
    /// So many of a hundred are lost.
    Percent(u8),
    /// What is more than so many bytes a second is lost.
    Above(u32),
}

impl Toll {
    /// The condition under which a packet is dropped, as nft says it.
    fn condition(self) -> String {
        match self {
            Self::All => String::new(),
            Self::Percent(percent) => format!("numgen random mod 100 < {percent} "),
            Self::Above(bytes) => format!("limit rate over {bytes} bytes/second burst {bytes} bytes "),
        }
    }
}

/// One direction that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// From here,
    pub from: Port,
    /// to there,
    pub to: Port,
    /// all packets, or only those of TCP from this port.
    pub source_port: Option<u16>,
    /// How much of it.
    pub toll: Toll,
}

impl Way {
    /// Everything from here to there.
    pub fn one(from: Port, to: Port) -> Self {
        Self {
            from,
            to,
            source_port: None,
            toll: Toll::All,
        }
    }

    /// Everything between two ports.
    pub fn both(a: Port, b: Port) -> [Self; 2] {
        [Self::one(a, b), Self::one(b, a)]
    }
}

/// The switch with everybody at it.
pub struct Network {
    switch: Netns,
    nodes: Vec<Arc<Netns>>,
    clients: Netns,
}

impl Network {
    /// A network for so many nodes. Needs root; the error says what is missing.
    pub fn new(count: usize) -> Result<Self, String> {
        let switch = Netns::new()?;
        switch.run("ip", &["link", "add", "br0", "type", "bridge"])?;
        switch.run("ip", &["link", "set", "br0", "up"])?;
        let nodes = (0..count)
            .map(|_| Netns::new().map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let clients = Netns::new()?;
        let network = Self {
            switch,
            nodes,
            clients,
        };
        for i in 0..count {
            network.plug(Port::Node(i), ip(i))?;
        }
        network.plug(Port::Clients, Ipv4Addr::new(10, 77, 0, 100))?;
        Ok(network)
    }

    fn plug(&self, port: Port, address: Ipv4Addr) -> Result<(), String> {
        let device = port.device();
        let home = match port {
            Port::Node(i) => {
                let [near, far] = cable_ends(i);
                self.link(&far, &["name", &device])?;
                self.switch
                    .run("ip", &["link", "add", &format!("b{i}"), "type", "bridge"])?;
                self.switch.run("ip", &["link", "set", &format!("b{i}"), "up"])?;
                let home = &*self.nodes[i];
                self.link(
                    &near,
                    &["name", "eth0", "netns", &home.path().display().to_string()],
                )?;
                self.short_cable(i)?;
                home
            }
            Port::Clients => {
                let home = &self.clients;
                self.link(
                    &device,
                    &["name", "eth0", "netns", &home.path().display().to_string()],
                )?;
                home
            }
        };
        self.switch
            .run("ip", &["link", "set", &device, "master", "br0", "up"])?;
        home.run("ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        home.run("ip", &["link", "set", "eth0", "up"])?;
        Ok(())
    }

    /// A pair of devices, of which the other is named so.
    fn link(&self, device: &str, other: &[&str]) -> Result<(), String> {
        let add = ["link", "add", device, "type", "veth", "peer"];
        self.switch.run("ip", &[&add, other].concat()).map(drop)
    }

    /// Connects a node's port with the switch.
    pub fn short_cable(&self, i: usize) -> Result<(), String> {
        for end in cable_ends(i) {
            self.switch
                .run("ip", &["link", "set", &end, "master", &format!("b{i}"), "up"])?;
        }
        Ok(())
    }

    /// Connects it by a slow cable instead, until that is dropped and `short_cable` is called.
    pub fn long_cable(&self, i: usize, seed: u64) -> Result<Cable, String> {
        let [near, far] = cable_ends(i);
        for end in [&near, &far] {
            self.switch.run("ip", &["link", "set", end, "nomaster"])?;
        }
        Cable::new(&self.switch, [&near, &far], seed)
    }

    /// Where a node lives.
    pub fn node(&self, i: usize) -> Arc<Netns> {
        Arc::clone(&self.nodes[i])
    }

    /// Moves the calling thread among the clients.
    pub fn join_clients(&self) -> Result<(), String> {
        self.clients.enter()
    }

    /// Whether cuts can be made here; the error names what is missing.
    pub fn can_cut(&self) -> Result<(), String> {
        self.cut("probe", &Way::both(Port::Node(0), Port::Clients))?;
        self.heal("probe")
    }

    /// Cuts these ways under this name.
    pub fn cut(&self, name: &str, ways: &[Way]) -> Result<(), String> {
        let mut text = format!(
            "table bridge {name} {{\n chain cut {{\n  type filter hook forward priority 0; policy accept;\n"
        );
        for way in ways {
            let (from, to) = (way.from.device(), way.to.device());
            let only = way
                .source_port
                .map_or_else(String::new, |port| format!("ether type ip tcp sport {port} "));
            let toll = way.toll.condition();
            text.push_str(&format!(
                "  iifname \"{from}\" oifname \"{to}\" {only}{toll}counter drop\n"
            ));
        }
        text.push_str(" }\n}\n");
        self.switch.feed("nft", &["-f", "-"], &text).map(drop)
    }

    /// How many packets a cut has swallowed so far, for each of its ways.
    pub fn swallowed(&self, name: &str) -> Result<Vec<u64>, String> {
        let text = self.switch.run("nft", &["list", "table", "bridge", name])?;
        Ok(text
            .lines()
            .filter_map(|line| {
                line.split_once("counter packets ")?
                    .1
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect())
    }

    /// Ends a cut.
    pub fn heal(&self, name: &str) -> Result<(), String> {
        self.switch
            .run("nft", &["delete", "table", "bridge", name])
            .map(drop)
    }
}

/// The ends of a node's cable: its own, and that at its port of the switch.
fn cable_ends(i: usize) -> [String; 2] {
    [format!("n{i}"), format!("m{i}")]
}

/// Address of a node.
pub fn ip(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(i + 1).unwrap())
}
