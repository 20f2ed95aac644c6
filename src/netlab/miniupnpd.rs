//! Debian's `miniupnpd` (nftables flavour) in a router: UPnP IGD, NAT-PMP, PCP and IPv6 pinholes by foreign code.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::LabError;
use super::namespace::Namespace;

/// The port of the device description and of SOAP requests. The daemon is alone in its namespace.
pub const HTTP_PORT: u16 = 5000;

/// How long the daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(5);

/// What the daemon shall offer.
#[derive(Clone, Debug)]
pub struct Options {
    /// UPnP IGD.
    pub upnp: bool,
    /// NAT-PMP and PCP, which this daemon switches together.
    pub natpmp_and_pcp: bool,
    /// IGD version 1 instead of 2.
    pub igd_v1: bool,
    /// Only mappings for the requester's own address.
    pub secure: bool,
    /// The external address to announce instead of that of the interface.
    pub external: Option<Ipv4Addr>,
    /// The shortest and longest PCP and NAT-PMP lease, seconds.
    pub lifetimes: (u32, u32),
    /// Further lines of the configuration file, such as `deny 0-65535 0.0.0.0/0 0-65535`.
    pub extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            upnp: true,
            natpmp_and_pcp: true,
            igd_v1: false,
            secure: true,
            external: None,
            lifetimes: (120, 86_400),
            extra: Vec::new(),
        }
    }
}

/// A running daemon; dropping it kills it and leaves its mappings in the firewall.
#[derive(Debug)]
pub struct Miniupnpd {
    child: Child,
    router: Namespace,
}

impl Miniupnpd {
    /// Starts the daemon in a router of a world and waits until it listens.
    ///
    /// # Errors
    /// [`LabError::Program`] where it cannot be started, [`LabError::NotReady`] where it ends or says nothing in five
    /// seconds.
    pub fn start(router: &Namespace, options: &Options) -> Result<Self, LabError> {
        let io = |source| LabError::Program { program: "miniupnpd".to_owned(), source };
        // The sandbox has an empty /run of its own.
        let stem = format!("/run/miniupnpd-{}", router.name());
        let file = format!("{stem}.conf");
        std::fs::write(&file, configuration(options, &stem)).map_err(io)?;
        let mut child = router
            .command("miniupnpd")
            .args(["-d", "-f", &file, "-P", &format!("{stem}.pid")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let (say, said) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            // Reads on until the daemon ends, so that it never blocks on a full pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    let _ = say.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        let daemon = Self { child, router: router.clone() };
        daemon.wait_until_ready(options, &said)?;
        Ok(daemon)
    }

    /// The process ID of the daemon.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The mappings and pinholes in the router's firewall, one rule a line: what the daemon really opened.
    ///
    /// # Errors
    /// [`LabError`] where `nft` fails.
    pub fn rules(&self) -> Result<Vec<String>, LabError> {
        let output = self
            .router
            .command("nft")
            .args(["list", "table", "inet", "nzc"])
            .output()
            .map_err(|source| LabError::Program { program: "nft".to_owned(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut inside = false;
        let mut rules = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(chain) = line.strip_prefix("chain ") {
                inside = chain.contains("miniupnpd");
            } else if line == "}" {
                inside = false;
            } else if inside && !line.is_empty() {
                rules.push(line.to_owned());
            }
        }
        Ok(rules)
    }

    fn wait_until_ready(&self, options: &Options, said: &mpsc::Receiver<String>) -> Result<(), LabError> {
        let mut awaited = Vec::new();
        if options.upnp {
            awaited.push("HTTP listening on port");
        }
        if options.natpmp_and_pcp {
            awaited.push("Listening for NAT-PMP/PCP traffic on port");
        }
        let deadline = Instant::now() + START_LIMIT;
        let mut heard = String::new();
        while !awaited.is_empty() {
            match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    awaited.retain(|sign| !line.contains(sign));
                    let _ = writeln!(heard, "{line}");
                }
                Err(_) => return Err(LabError::NotReady { program: "miniupnpd".to_owned(), said: heard }),
            }
        }
        Ok(())
    }
}

impl Drop for Miniupnpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(options: &Options, stem: &str) -> String {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let Options { upnp, natpmp_and_pcp, igd_v1, secure, external, lifetimes: (shortest, longest), extra } = options;
    let mut text = format!(
        "ext_ifname=wan
listening_ip=lan
http_port={HTTP_PORT}
enable_upnp={}
enable_natpmp={}
force_igd_desc_v1={}
secure_mode={}
system_uptime=yes
min_lifetime={shortest}
max_lifetime={longest}
upnp_table_name=nzc
upnp_nat_table_name=nzc
lease_file={stem}.leases
minissdpdsocket={stem}.minissdpd
uuid=6d7a1f0e-7f53-4a4c-9d0b-2f1b5f9f3f10
friendly_name=Lab router
",
        yes(*upnp),
        yes(*natpmp_and_pcp),
        yes(*igd_v1),
        yes(*secure)
    );
    if let Some(external) = external {
        let _ = writeln!(text, "ext_ip={external}");
    }
    for line in extra {
        let _ = writeln!(text, "{line}");
    }
    text
}
