//! What is refused in a rule, with its place and its remedy.

use rstest::rstest;

use super::errors::only_error;

/// Rules begin at line 5: what follows the name and the action is at line 8.
#[rstest]
#[case::key("x = 1", "8:1: error: `x` is not a key of rule")]
#[case::near_key(
    "proces = { uid = 0 }",
    "8:1: error: `proces` is not a key of rule (remedy: write `process`, or remove it)"
)]
#[case::process_key(
    "process = { exe = '/a' }",
    "8:13: error: `exe` is not a key of process (remedy: write `executable`, or remove it)"
)]
#[case::destination_key(
    "destination = { ports = 1 }",
    "8:17: error: `ports` is not a key of destination (remedy: write `port`"
)]
#[case::source_key(
    "source = { cidr = '::/0' }",
    "8:12: error: `cidr` is not a key of source"
)]
#[case::parent_key(
    "process = { parent = { path = '/a', executable = '/b' } }",
    "8:24: error: `path` is not a key of parent"
)]
#[case::process_kind(
    "process = '/bin/a'",
    "8:11: error: `process`: must be a table, not a string"
)]
#[case::process_empty(
    "process = {}",
    "8:11: error: `process`: is empty (remedy: fill it in, or leave it out)"
)]
#[case::empty_list(
    "process = { uid = [] }",
    "8:19: error: `uid`: is an empty list, which nothing matches"
)]
#[case::second_of_list(
    "process = { uid = [0,\n 'nobody', 1] }",
    "9:2: error: `uid`: this host has no user `nobody` (remedy: add the user first, or write its number)"
)]
#[case::group(
    "process.gid = 'wheel'",
    "8:15: error: `gid`: this host has no group `wheel`"
)]
#[case::uid_range(
    "process.uid = '5-1'",
    "8:15: error: `uid`: the range `5-1` runs backwards (remedy: write the smaller number first)"
)]
#[case::uid_none(
    "process.uid = 4294967295",
    "8:15: error: `uid`: `4294967295` is not the id of a user"
)]
#[case::uid_negative("process.uid = -1", "8:15: error: `uid`: `-1` is not the id of a user")]
#[case::uid_range_too_far(
    "process.uid = '1-4294967295'",
    "8:15: error: `uid`: `1-4294967295` is not the id"
)]
#[case::uid_kind(
    "process.uid = 1.5",
    "8:15: error: `uid`: must be a number, a name or a range, not a float"
)]
#[case::relative(
    "process.executable = 'bin/a'",
    "8:22: error: `executable`: `bin/a` is not an absolute path (remedy: begin it with `/`)"
)]
#[case::dots(
    "process.executable = '/usr/../bin/a'",
    "8:22: error: `executable`: `/usr/../bin/a` holds `..` (remedy: write `/bin/a`)"
)]
#[case::dot(
    "process.executable = '/usr/./a'",
    "8:22: error: `executable`: `/usr/./a` holds `.` (remedy: write `/usr/a`)"
)]
#[case::slashes(
    "process.executable = '/usr//a'",
    "8:22: error: `executable`: `/usr//a` holds `//` (remedy: write `/usr/a`)"
)]
#[case::trailing(
    "process.executable = '/usr/'",
    "8:22: error: `executable`: `/usr/` ends with `/` (remedy: write `/usr`)"
)]
#[case::root(
    "process.executable = '/'",
    "8:22: error: `executable`: `/` is no file (remedy: write \"/**\" for every file)"
)]
#[case::empty_path(
    "process.executable = ''",
    "8:22: error: `executable`: `` is not an absolute path"
)]
#[case::star(
    "process.executable = '/usr/*/a'",
    "8:22: error: `executable`: `/usr/*/a` holds a `*` that is not a final `/**`"
)]
#[case::one_star(
    "process.executable = '/usr/*'",
    "8:22: error: `executable`: `/usr/*` holds a `*`"
)]
#[case::stars_in_a_name(
    "process.executable = '/usr/a**'",
    "8:22: error: `executable`: `/usr/a**` holds a `*`"
)]
#[case::stars_twice(
    "process.executable = '/usr/**/**'",
    "8:22: error: `executable`: `/usr/**/**` holds a `*`"
)]
#[case::nul(
    "process.executable = \"/a\\u0000\"",
    "8:22: error: `executable`: holds a NUL"
)]
#[case::short_hash(
    "process.sha256 = '9f86d081'",
    "8:18: error: `sha256`: has 8 digits instead of 64 (remedy: write the 64 hexadecimal digits that sha256sum prints)"
)]
#[case::odd_hash(
    "process.sha256 = '9f8'",
    "8:18: error: `sha256`: has 3 digits instead of 64"
)]
#[case::no_hash(
    "process.sha256 = '9f86...'",
    "8:18: error: `sha256`: '.' is no hexadecimal digit"
)]
#[case::inode_form(
    "process.inode = '8:1'",
    "8:17: error: `inode`: `8:1` is not an inode (remedy: write it as \"major:minor:inode\""
)]
#[case::inode_more(
    "process.inode = '8:1:2:3'",
    "8:17: error: `inode`: `8:1:2:3` is not an inode"
)]
#[case::inode_sign(
    "process.inode = '+8:1:2'",
    "8:17: error: `inode`: `+8:1:2` is not an inode"
)]
#[case::inode_major(
    "process.inode = '4096:1:2'",
    "8:17: error: `inode`: `4096:1:2` is not an inode"
)]
#[case::inode_minor(
    "process.inode = '8:1048576:2'",
    "8:17: error: `inode`: `8:1048576:2` is not"
)]
#[case::inode_zero(
    "process.inode = '8:1:0'",
    "8:17: error: `inode`: `8:1:0` is not an inode"
)]
#[case::inode_kind(
    "process.inode = 1234",
    "8:17: error: `inode`: must be a string, not an integer"
)]
#[case::cgroup(
    "process.cgroup = 'system.slice'",
    "8:18: error: `cgroup`: `system.slice` is not an absolute path"
)]
#[case::cgroup_mount(
    "process.cgroup = '/sys/fs/cgroup/a.slice'",
    "8:18: error: `cgroup`: `/sys/fs/cgroup/a.slice` counts from the root of the host (remedy: count from the hierarchy's root: `/a.slice`)"
)]
#[case::cgroup_star(
    "process.cgroup = '/a/**'",
    "8:18: error: `cgroup`: `/a/**` holds a `*` (remedy: leave it out: a cgroup stands for all below it)"
)]
#[case::cgroup_slash("process.cgroup = '/a/'", "8:18: error: `cgroup`: `/a/` ends with `/`")]
#[case::unit(
    "process.unit = 'sshd'",
    "8:16: error: `unit`: `sshd` is not the name of a systemd unit with processes (remedy: write it with its suffix, as in \"sshd.service\")"
)]
#[case::unit_path(
    "process.unit = 'a/b.service'",
    "8:16: error: `unit`: `a/b.service` is not"
)]
#[case::unit_stem("process.unit = '.service'", "8:16: error: `unit`: `.service` is not")]
#[case::container_short(
    "process.container = '0123456789a'",
    "8:21: error: `container`: `0123456789a` has 11 digits, and 12 to 64 are asked for"
)]
#[case::container_name(
    "process.container = 'my-container'",
    "8:21: error: `container`: `my-container` is not the id of a container"
)]
#[case::parent_both(
    "process.parent = { executable = '/a', inode = '8:1:2' }",
    "8:18: error: `parent`: must have exactly one of executable, sha256 and inode (remedy: write one of them, and a list of tables for any of several images)"
)]
#[case::ancestor_empty("process.ancestor = {}", "8:20: error: `ancestor`: is empty")]
#[case::ancestor_kind(
    "process.ancestor = ['/a']",
    "8:21: error: `ancestor`: must be a table, not a string (remedy: write ancestor = { … })"
)]
#[case::role(
    "process.role = 'openre'",
    "8:16: error: `role`: `openre` is not \"opener\", \"speaker\" or \"acceptor\" (remedy: write \"opener\")"
)]
#[case::acceptor(
    "process.role = ['opener', 'acceptor']",
    "8:16: error: `role`: \"acceptor\" matches only accepted sockets, and the rule is for all others (remedy: add direction = \"ingress\" to the rule)"
)]
#[case::ingress_opener(
    "direction = 'ingress'\nprocess.role = 'opener'",
    "9:16: error: `role`: accepted sockets have the role \"acceptor\" and no other"
)]
#[case::ingress_kernel(
    "direction = 'ingress'\nprocess.kernel = true",
    "8:13: error: `direction` and `kernel` never match together"
)]
#[case::direction(
    "direction = 'egress'",
    "8:13: error: `direction`: `egress` is not \"ingress\" (remedy: write \"ingress\" for accepted sockets, or leave it out for all others)"
)]
#[case::kernel(
    "process = { uid = 0, kernel = true }",
    "8:31: error: `kernel` and `uid` never match together: the kernel's own traffic has no process"
)]
#[case::kernel_kind(
    "process = { kernel = 'yes' }",
    "8:22: error: `kernel`: must be true or false, not a string"
)]
#[case::cidr(
    "destination.cidr = '10.0.0/8'",
    "8:20: error: `cidr`: `10.0.0/8` is not a network (remedy: write it as \"10.1.2.0/24\" or \"fd00::/8\")"
)]
#[case::cidr_len(
    "destination.cidr = '10.0.0.0/33'",
    "8:20: error: `cidr`: `10.0.0.0/33` is not a network"
)]
#[case::cidr_bits(
    "destination.cidr = '10.1.2.3/24'",
    "8:20: error: `cidr`: `10.1.2.3/24` has bits set behind its prefix (remedy: write \"10.1.2.0/24\" for the network, or \"10.1.2.3/32\" for the one address)"
)]
#[case::cidr_name(
    "destination.cidr = 'example.com'",
    "8:20: error: `cidr`: `example.com` is not a network"
)]
#[case::cidr_kind(
    "destination.cidr = 10",
    "8:20: error: `cidr`: must be a network, not an integer"
)]
#[case::unknown_set(
    "destination.set = 'secret'",
    "8:19: error: `set`: there is no set `secret` (remedy: write \"secrets\")"
)]
#[case::unlike_set(
    "destination.set = ['secrets', 'x']",
    "8:31: error: `set`: there is no set `x` (remedy: write its networks under [set.NAME])"
)]
#[case::port_zero(
    "destination.port = 0",
    "8:20: error: `port`: `0` is not a port (remedy: write a number from 1 to 65535, or a range such as \"8000-8999\")"
)]
#[case::port_range_zero(
    "destination.port = '0-10'",
    "8:20: error: `port`: `0-10` is not a port"
)]
#[case::port_large(
    "destination.port = 65536",
    "8:20: error: `port`: `65536` is not a port"
)]
#[case::port_backwards(
    "destination.port = '90-80'",
    "8:20: error: `port`: the range `90-80` runs backwards"
)]
#[case::port_name(
    "destination.port = 'https'",
    "8:20: error: `port`: `https` is not a port"
)]
#[case::port_kind(
    "source.port = true",
    "8:15: error: `port`: must be a number or a range, not a boolean"
)]
#[case::transport(
    "destination.transport = 'icmpv6'",
    "8:25: error: `transport`: `icmpv6` is not \"tcp\", "
)]
#[case::no_ports(
    "destination = { transport = ['tcp', 'icmp'], port = 1 }",
    "8:37: error: `transport`: \"icmp\" has no ports, and the rule asks for one (remedy: leave out the port, or make a rule of its own of it)"
)]
#[case::no_source_ports(
    "source.port = 1\ndestination.transport = 'ipv6-icmp'",
    "9:25: error: `transport`: \"ipv6-icmp\" has no ports"
)]
#[case::packet(
    "destination = { cidr = '::/0', socket = 'packet' }",
    "8:41: error: `socket`: a \"packet\" socket has neither address, port nor transport, and the rule has `cidr`"
)]
#[case::packet_source(
    "source.port = 1\ndestination.socket = ['raw', 'packet']",
    "9:22: error: `socket`: a \"packet\" socket has neither"
)]
#[case::socket(
    "destination.socket = 'stream'",
    "8:22: error: `socket`: `stream` is not \"raw\" or \"packet\""
)]
#[case::expires_relative(
    "expires = '+4h'",
    "8:11: error: `expires`: `+4h` names no time of its own date (remedy: write a date and time, such as \"2026-11-22T15:04:05Z\")"
)]
#[case::expires_today(
    "expires = '15:04'",
    "8:11: error: `expires`: `15:04` names no time of its own date"
)]
#[case::expires_toml_time(
    "expires = 15:04:05",
    "8:11: error: `expires`: `15:04:05` names no time"
)]
#[case::expires_no_time(
    "expires = '2026-11-31'",
    "8:11: error: `expires`: `2026-11-31` is not a time"
)]
#[case::expires_far(
    "expires = 9999-01-01",
    "8:11: error: `expires`: `9999-01-01` is out of range"
)]
#[case::expires_kind(
    "expires = 1795359845",
    "8:11: error: `expires`: must be a time, not an integer"
)]
#[case::columns_are_characters(
    "process = { cgroup = '/ü', uid = -1 }",
    "8:34: error: `uid`: `-1` is not the id of a user"
)]
fn a_rule(#[case] lines: &str, #[case] expected: &str) {
    let text = format!(
        "mode = 'enforce'\n[set.secrets]\ncidr = '10.1.2.3/32'\n\n\
         [[rule]]\nname = 'r'\naction = 'deny'\n{lines}\n"
    );
    let error = only_error(&text);
    assert!(error.starts_with(expected), "{error}");
}
