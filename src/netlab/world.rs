//! A public segment, routers and hosts as network namespaces.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::LabError;
use super::kind::Kind;
use super::namespace::{Namespace, Script};
use super::router::{Gate, Router};
use super::rules::{Sides, ruleset};
use super::sandbox::system_command;

/// The server addresses on the public segment. The first two belong to one RFC 5780 server; the others stand in
/// networks of their own.
pub const SERVERS_V4: [Ipv4Addr; 4] =
    [Ipv4Addr::new(11, 0, 0, 1), Ipv4Addr::new(11, 0, 0, 2), Ipv4Addr::new(12, 0, 0, 1), Ipv4Addr::new(13, 0, 0, 1)];

/// The IPv6 server addresses on the public segment, ordered as [`SERVERS_V4`].
pub const SERVERS_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2a00, 0x11, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2a00, 0x11, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0x2a00, 0x12, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2a00, 0x13, 0, 0, 0, 0, 0, 1),
];

/// Where a captive portal sends every TCP connection: a web server may listen here, on the public segment.
pub const PORTAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 80), 80);

/// External addresses of every router on the public segment.
const POOL: u8 = 4;

/// One home of a plan.
#[derive(Clone, Debug)]
pub struct Home {
    /// The routers, the hosts' own first.
    pub routers: Vec<Router>,
    /// How many hosts stand behind the first router, 1 to 8.
    pub hosts: u8,
    /// Whether networks between two routers are 100.64/10 rather than 10/8.
    pub carrier: bool,
    /// Whether a namespace stands between the last router and the public segment, for a wire that delays and drops:
    /// the interfaces `near` (the router's side) and `far`, which nobody connects.
    pub wire: bool,
}

impl Home {
    /// A home of a named kind with one host.
    #[must_use]
    pub fn of_kind(kind: &Kind) -> Self {
        Self { routers: kind.routers.to_vec(), hosts: 1, carrier: kind.carrier, wire: false }
    }

    /// A home with one host behind one router.
    #[must_use]
    pub fn behind(router: Router) -> Self {
        Self { routers: vec![router], hosts: 1, carrier: false, wire: false }
    }

    /// The same home with this many hosts.
    #[must_use]
    pub fn with_hosts(self, hosts: u8) -> Self {
        Self { hosts, ..self }
    }

    /// The same home with a place for a wire.
    #[must_use]
    pub fn with_wire(self) -> Self {
        Self { wire: true, ..self }
    }
}

/// What a world shall contain: up to 200 homes around one public segment.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The homes.
    pub homes: Vec<Home>,
}

impl Plan {
    /// A world with one home.
    #[must_use]
    pub fn one(home: Home) -> Self {
        Self { homes: vec![home] }
    }
}

/// A world that exists. Dropping it removes its namespaces; processes in them must be ended first.
#[derive(Debug)]
pub struct World {
    public: Namespace,
    homes: Vec<BuiltHome>,
    all: Vec<Namespace>,
}

/// A home that exists.
#[derive(Clone, Debug)]
pub struct BuiltHome {
    /// The hosts.
    pub hosts: Vec<Namespace>,
    /// The routers, the hosts' own first.
    pub routers: Vec<Namespace>,
    /// The place of the wire.
    pub wire: Option<Namespace>,
    /// The IPv4 addresses of the hosts.
    pub hosts_v4: Vec<Ipv4Addr>,
    /// The IPv6 addresses of the hosts.
    pub hosts_v6: Vec<Ipv6Addr>,
    /// The first router's address towards the hosts.
    pub gateway_v4: Ipv4Addr,
    /// The last router's addresses on the public segment; the first is its own, the others a pool.
    pub external_v4: Vec<Ipv4Addr>,
    /// The last router's IPv6 address on the public segment.
    pub external_v6: Ipv6Addr,
}

/// Tells the namespaces of several worlds in one sandbox apart.
static WORLDS: AtomicU32 = AtomicU32::new(1);

impl World {
    /// Builds a world. The program must be in a sandbox ([`super::sandbox::enter`]).
    ///
    /// # Errors
    /// [`LabError::Plan`] where the plan makes no sense, otherwise what a command said.
    pub fn build(plan: &Plan) -> Result<Self, LabError> {
        let world = WORLDS.fetch_add(1, Ordering::Relaxed);
        let mut draft = Draft { world, ..Draft::default() };
        let public = draft.namespace("public");
        for (index, home) in plan.homes.iter().enumerate() {
            let number = u8::try_from(index + 1)
                .ok()
                .filter(|number| *number <= 200)
                .ok_or_else(|| LabError::Plan("there is room for 200 homes".to_owned()))?;
            draft.home(number, home)?;
        }
        draft.public();
        let built = Self {
            public,
            homes: draft.homes.clone(),
            all: draft.scripts.iter().map(|(namespace, _)| namespace.clone()).collect(),
        };
        // From here on a failure drops `built`, which removes what exists.
        batch(&draft.links, "making the links")?;
        let running: Vec<Script> =
            draft.scripts.iter().map(|(namespace, text)| namespace.begin_script(text)).collect::<Result<_, _>>()?;
        running.into_iter().try_for_each(Script::finish)?;
        Ok(built)
    }

    /// The public segment: server addresses, and the routers' next hops.
    #[must_use]
    pub fn public(&self) -> &Namespace {
        &self.public
    }

    /// The homes in the order of the plan.
    #[must_use]
    pub fn homes(&self) -> &[BuiltHome] {
        &self.homes
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut commands = String::new();
        for namespace in &self.all {
            let _ = writeln!(commands, "netns del {}", namespace.name());
        }
        // What cannot be removed now goes with the sandbox.
        let _ = batch(&commands, "removing namespaces");
    }
}

fn batch(commands: &str, step: &str) -> Result<(), LabError> {
    let mut ip = system_command("ip");
    ip.args(["-force", "-batch", "-"]);
    Script::begin(ip, commands, step.to_owned())?.finish()
}

/// A world on paper.
#[derive(Default)]
struct Draft {
    world: u32,
    /// Commands that make the namespaces and the links between them.
    links: String,
    /// The set-up of each namespace.
    scripts: Vec<(Namespace, String)>,
    /// Interfaces and routes of the public segment.
    public: String,
    homes: Vec<BuiltHome>,
}

/// The network between two neighbours: `.1` and `::1` are the upper end, `.2` and `::2` the lower.
struct Link {
    v4: [u8; 3],
    v6: Option<[u16; 4]>,
}

impl Link {
    fn v4(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.v4;
        Ipv4Addr::new(a, b, c, host)
    }

    fn v6(&self, host: u16) -> Option<Ipv6Addr> {
        self.v6.map(|[a, b, c, d]| Ipv6Addr::new(a, b, c, d, 0, 0, 0, host))
    }

    fn address_commands(&self, interface: &str, host: u8) -> String {
        let mut text = format!("addr add {}/24 dev {interface}\n", self.v4(host));
        if let Some(v6) = self.v6(host.into()) {
            let _ = writeln!(text, "addr add {v6}/64 dev {interface} nodad");
        }
        text
    }

    fn default_routes(&self) -> String {
        let mut text = format!("route add default via {}\n", self.v4(1));
        if let Some(v6) = self.v6(1) {
            let _ = writeln!(text, "route add default via {v6}");
        }
        text
    }

    fn v4_network(&self) -> String {
        format!("{}/24", self.v4(0))
    }

    fn v6_network(&self) -> Option<String> {
        self.v6(0).map(|address| format!("{address}/64"))
    }
}

impl Draft {
    fn namespace(&mut self, role: &str) -> Namespace {
        let namespace = Namespace::named(format!("w{}-{role}", self.world));
        let _ = writeln!(self.links, "netns add {}", namespace.name());
        namespace
    }

    fn link(&mut self, upper: (&Namespace, &str), lower: (&Namespace, &str)) {
        // One segment a packet: a wire in user space sends what it received, and no frame is longer than the link.
        let whole = "gso_max_segs 1";
        let _ = writeln!(
            self.links,
            "link add {} netns {} {whole} type veth peer name {} netns {} {whole}",
            upper.1,
            upper.0.name(),
            lower.1,
            lower.0.name()
        );
    }

    fn home(&mut self, number: u8, home: &Home) -> Result<(), LabError> {
        if home.routers.is_empty() || !(1..=8).contains(&home.hosts) {
            return Err(LabError::Plan("a home has at least one router and 1 to 8 hosts".to_owned()));
        }
        let six = ipv6_here() && home.routers.iter().all(|router| router.v6.is_some());
        let routers: Vec<Namespace> =
            (0..home.routers.len()).map(|level| self.namespace(&format!("router{number}-{level}"))).collect();
        let public = Namespace::named(format!("w{}-public", self.world));
        let wan = Link { v4: [11, number, 0], v6: six.then_some([0x2a00, 0x11, number.into(), 0]) };
        let port = format!("home{number}");
        let last = routers.last().cloned().unwrap_or_else(|| public.clone());
        let wire = home.wire.then(|| self.namespace(&format!("wire{number}")));
        if let Some(wire) = &wire {
            self.link((&public, &port), (wire, "far"));
            self.link((wire, "near"), (&last, "wan"));
            let text = "sysctl6 disable_ipv6 near 1\nsysctl6 disable_ipv6 far 1\n";
            self.scripts.push((wire.clone(), script(text, "link set near up\nlink set far up\n", "")));
        } else {
            self.link((&public, &port), (&last, "wan"));
        }
        let _ = write!(self.public, "link set {port} up\n{}", wan.address_commands(&port, 1));

        // From the public segment towards the hosts.
        let mut upper = wan;
        let mut pool = POOL;
        for (level, router) in home.routers.iter().enumerate().rev() {
            let lower = inner_link(number, level, router, home.carrier, six, &upper);
            self.router(router, &routers, level, (&upper, pool), &lower, home.hosts)?;
            if matches!(router.v4, Gate::Open | Gate::Firewall(..)) {
                // Untranslated hosts are reached through the router.
                let _ = writeln!(self.public, "route add {} via 11.{number}.0.2", lower.v4_network());
            }
            if let (Some(Gate::Open | Gate::Firewall(..)), Some(network)) = (router.v6, lower.v6_network()) {
                let _ = writeln!(self.public, "route add {network} via 2a00:11:{number:x}::2");
            }
            upper = lower;
            pool = 1;
        }
        let lan = upper;
        let mut built = BuiltHome {
            hosts: Vec::new(),
            routers: routers.clone(),
            wire,
            hosts_v4: Vec::new(),
            hosts_v6: Vec::new(),
            gateway_v4: lan.v4(1),
            external_v4: (2..2 + POOL).map(|host| Ipv4Addr::new(11, number, 0, host)).collect(),
            external_v6: Ipv6Addr::new(0x2a00, 0x11, number.into(), 0, 0, 0, 0, 2),
        };
        let first = routers.first().cloned().unwrap_or(last);
        for index in 0..home.hosts {
            let host = self.namespace(&format!("host{number}-{index}"));
            let port = if home.hosts == 1 { "lan".to_owned() } else { format!("lan{index}") };
            self.link((&first, &port), (&host, "eth0"));
            let setup = format!(
                "link set lo up\nlink set eth0 up\n{}{}",
                lan.address_commands("eth0", index + 2),
                lan.default_routes()
            );
            self.scripts.push((host.clone(), script("sysctl6 accept_dad eth0 0\n", &setup, "")));
            built.hosts.push(host);
            built.hosts_v4.push(lan.v4(index + 2));
            built.hosts_v6.extend(lan.v6(u16::from(index) + 2));
        }
        self.homes.push(built);
        Ok(())
    }

    fn router(
        &mut self,
        router: &Router,
        routers: &[Namespace],
        level: usize,
        (upper, pool): (&Link, u8),
        lower: &Link,
        hosts: u8,
    ) -> Result<(), LabError> {
        let Some(namespace) = routers.get(level).cloned() else { return Ok(()) };
        let mut setup = String::from("link set lo up\nlink set wan up\n");
        if let Some(below) = level.checked_sub(1).and_then(|below| routers.get(below)) {
            self.link((&namespace, "lan"), (below, "wan"));
        } else if hosts > 1 {
            setup.push_str("link add lan type bridge stp_state 0 mcast_snooping 0\n");
            (0..hosts).for_each(|index| {
                let _ = writeln!(setup, "link set lan{index} master lan up");
            });
        }
        setup.push_str("link set lan up\n");
        setup.push_str(&lower.address_commands("lan", 1));
        setup.push_str(&upper.address_commands("wan", 2));
        for extra in 3..2 + pool {
            let _ = writeln!(setup, "addr add {}/24 dev wan", upper.v4(extra));
        }
        setup.push_str(&upper.default_routes());
        let v4 = Sides {
            inside: lower.v4_network(),
            outside: (2..2 + pool).map(|host| IpAddr::V4(upper.v4(host))).collect(),
        };
        let v6 = upper
            .v6(2)
            .zip(lower.v6_network())
            .map(|(outside, inside)| Sides { inside, outside: vec![outside.into()] });
        let rules = ruleset(router, &v4, v6.as_ref())?;
        let sysctls = format!("{}{}", FORWARDING, lifetimes(router));
        self.scripts.push((namespace, script(&sysctls, &setup, &rules)));
        Ok(())
    }

    fn public(&mut self) {
        let mut setup = String::from("link set lo up\n");
        for address in SERVERS_V4.iter().chain([PORTAL.ip()]) {
            let _ = writeln!(setup, "addr add {address}/32 dev lo");
        }
        for address in SERVERS_V6.iter().filter(|_| ipv6_here()) {
            let _ = writeln!(setup, "addr add {address}/128 dev lo nodad");
        }
        setup.push_str(&self.public);
        let public = Namespace::named(format!("w{}-public", self.world));
        self.scripts.push((public, script(FORWARDING, &setup, "")));
    }
}

/// Whether this kernel has IPv6 at all.
fn ipv6_here() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// The network under a router: the hosts' own, or the one between two routers.
fn inner_link(number: u8, level: usize, router: &Router, carrier: bool, six: bool, upper: &Link) -> Link {
    let depth = u8::try_from(level).unwrap_or(u8::MAX);
    let v4 = match (router.v4, level) {
        // Public addresses only where nothing above translates, which a public upper network shows.
        (Gate::Open | Gate::Firewall(..), _) if upper.v4.first() == Some(&11) => [11, number, depth.saturating_add(1)],
        (_, 0) => [192, 168, number],
        _ if carrier => [100, 64_u8.saturating_add(depth), number],
        _ => [10, depth, number],
    };
    let inner = u16::from(depth).saturating_add(1);
    let v6 = six.then_some(match router.v6 {
        Some(Gate::Translate(_)) => [0xfd00, number.into(), inner, 0],
        _ => [0x2a00, 0x11, number.into(), inner],
    });
    Link { v4, v6 }
}

/// Lets a namespace pass packets on, without the waits of duplicate address detection, and without rules for packets
/// that a bridge passes from port to port.
const FORWARDING: &str = "\
echo 1 > /proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; fi
for file in /proc/sys/net/ipv6/conf/*/accept_dad; do [ ! -e $file ] || echo 0 > $file; done
for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || echo 0 > $file; done
";

/// The lifetimes of the connection table follow the shortest lifetime of the router's translators.
fn lifetimes(router: &Router) -> String {
    let lifetime = [Some(router.v4), router.v6]
        .into_iter()
        .flatten()
        .filter_map(|gate| if let Gate::Translate(nat) = gate { Some(nat.lifetime) } else { None })
        .min();
    let Some(lifetime) = lifetime else { return String::new() };
    let seconds = lifetime.as_secs().max(1);
    let folder = "/proc/sys/net/netfilter";
    // The files appear with the first rule that looks at connections.
    format!(
        "after() {{ echo {seconds} > {folder}/nf_conntrack_udp_timeout; \
echo {seconds} > {folder}/nf_conntrack_udp_timeout_stream; }}\n"
    )
}

/// The set-up of one namespace: system settings, `ip` commands, firewall rules, and what must come `after` them.
fn script(settings: &str, ip: &str, nft: &str) -> String {
    let mut text = format!(
        "sysctl6() {{ if [ -e /proc/sys/net/ipv6 ]; then echo $3 > /proc/sys/net/ipv6/conf/$2/$1; fi; }}\n\
after() {{ :; }}\n{settings}ip -batch - <<'EOF'\n{ip}EOF\n"
    );
    if !nft.is_empty() {
        let _ = write!(text, "nft -f - <<'EOF'\n{nft}EOF\n");
    }
    text.push_str("after\n");
    // A link carries once the kernel has noticed that both ends are up, which it does a little later by itself.
    text.push_str(
        "tries=0\n\
while ip -o link show type veth | grep -qv 'state UP'; do\n\
tries=$((tries + 1)); [ $tries -lt 300 ] || { echo 'a link does not come up' >&2; exit 1; }; sleep 0.01\n\
done\n",
    );
    text
}
