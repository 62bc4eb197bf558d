//! Offsets of the kernel fields the programs read.
//!
//! rustc emits no CO-RE relocations, so the loader looks each field up in the
//! running kernel's BTF and writes its offset into the programs' read-only
//! data, which the verifier treats as constants. [`FIELDS`] is the one table
//! of every kernel field procid depends on.

#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derive makes a helper type for each of the many fields"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of an optional field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// How a field is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it procid cannot run.
    Required,
    /// Kernels are built without it; its offset is then [`ABSENT`].
    Optional,
    /// A bit field: the value is the offset in *bits*.
    Bit,
    /// The size of the structure; `paths` is empty.
    Size,
}

/// One field: where the kernel keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the member of [`Offsets`].
    pub name: &'static str,
    pub structure: &'static str,
    /// Member paths, the first that exists is taken: kernels moved fields.
    pub paths: &'static [&'static str],
    pub need: Need,
}

macro_rules! offsets {
    ($($name:ident: $need:ident $structure:literal [$($path:literal),*];)*) => {
        /// Offsets in bytes (in bits for [`Need::Bit`]), in the order of [`FIELDS`].
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct Offsets {
            $(pub $name: u32,)*
        }

        impl Offsets {
            pub const ZERO: Self = Self { $($name: 0,)* };
        }

        /// Every kernel field the programs read.
        pub const FIELDS: &[Field] = &[
            $(Field {
                name: stringify!($name),
                structure: $structure,
                paths: &[$($path),*],
                need: Need::$need,
            },)*
        ];

        const _: () = assert!(size_of::<Offsets>() == 4 * FIELDS.len());
    };
}

offsets! {
    task_pid: Required "task_struct" ["pid"];
    task_tgid: Required "task_struct" ["tgid"];
    task_flags: Required "task_struct" ["flags"];
    task_group_leader: Required "task_struct" ["group_leader"];
    task_real_parent: Required "task_struct" ["real_parent"];
    task_start_boottime: Required "task_struct" ["start_boottime"];
    task_self_exec_id: Required "task_struct" ["self_exec_id"];
    task_parent_exec_id: Required "task_struct" ["parent_exec_id"];
    task_exit_code: Required "task_struct" ["exit_code"];
    task_comm: Required "task_struct" ["comm"];
    task_cred: Required "task_struct" ["cred"];
    task_mm: Required "task_struct" ["mm"];
    task_fs: Required "task_struct" ["fs"];
    task_nsproxy: Required "task_struct" ["nsproxy"];
    task_signal: Required "task_struct" ["signal"];
    task_cgroups: Optional "task_struct" ["cgroups"];
    task_loginuid: Optional "task_struct" ["loginuid"];
    task_sessionid: Optional "task_struct" ["sessionid"];

    signal_live: Required "signal_struct" ["live"];
    signal_flags: Required "signal_struct" ["flags"];
    signal_group_exit_code: Required "signal_struct" ["group_exit_code"];
    signal_pids: Required "signal_struct" ["pids"];
    signal_is_child_subreaper: Bit "signal_struct" ["is_child_subreaper"];

    pid_level: Required "pid" ["level"];
    pid_numbers: Required "pid" ["numbers"];
    upid_nr: Required "upid" ["nr"];
    upid_size: Size "upid" [];

    css_set_dfl_cgrp: Optional "css_set" ["dfl_cgrp"];
    cgroup_kn: Optional "cgroup" ["kn"];
    kernfs_node_id: Optional "kernfs_node" ["id"];
    kernfs_node_name: Optional "kernfs_node" ["name"];
    kernfs_node_parent: Optional "kernfs_node" ["__parent", "parent"];
    kernfs_node_iattr: Optional "kernfs_node" ["iattr"];
    kernfs_iattrs_uid: Optional "kernfs_iattrs" ["ia_uid"];

    cred_uid: Required "cred" ["uid"];
    cred_gid: Required "cred" ["gid"];
    cred_euid: Required "cred" ["euid"];
    cred_egid: Required "cred" ["egid"];

    nsproxy_net_ns: Required "nsproxy" ["net_ns"];
    nsproxy_mnt_ns: Required "nsproxy" ["mnt_ns"];
    net_inum: Required "net" ["ns.inum"];
    mnt_namespace_inum: Required "mnt_namespace" ["ns.inum"];
    mnt_namespace_user_ns: Required "mnt_namespace" ["user_ns"];
    user_namespace_level: Required "user_namespace" ["level"];

    mm_exe_file: Required "mm_struct" ["exe_file"];
    mm_arg_start: Required "mm_struct" ["arg_start"];
    mm_arg_end: Required "mm_struct" ["arg_end"];

    fs_root: Required "fs_struct" ["root"];
    fs_pwd: Required "fs_struct" ["pwd"];
    path_mnt: Required "path" ["mnt"];
    path_dentry: Required "path" ["dentry"];
    file_path: Required "file" ["f_path"];
    file_inode: Required "file" ["f_inode"];
    dentry_inode: Required "dentry" ["d_inode"];
    dentry_parent: Required "dentry" ["d_parent"];
    dentry_name: Required "dentry" ["d_name.name"];
    dentry_hash_pprev: Required "dentry" ["d_hash.pprev"];
    dentry_name_len: Required "dentry" ["d_name.len"];
    vfsmount_root: Required "vfsmount" ["mnt_root"];
    vfsmount_flags: Required "vfsmount" ["mnt_flags"];
    mount_mnt: Required "mount" ["mnt"];
    mount_parent: Required "mount" ["mnt_parent"];
    mount_mountpoint: Required "mount" ["mnt_mountpoint"];
    mount_id: Required "mount" ["mnt_id"];
    mount_ns: Required "mount" ["mnt_ns"];

    inode_ino: Required "inode" ["i_ino"];
    inode_sb: Required "inode" ["i_sb"];
    inode_size: Required "inode" ["i_size"];
    inode_nlink: Required "inode" ["i_nlink"];
    inode_generation: Required "inode" ["i_generation"];
    inode_ctime_sec: Required "inode" ["i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec"];
    inode_ctime_nsec: Required "inode" ["i_ctime_nsec", "__i_ctime.tv_nsec", "i_ctime.tv_nsec"];
    inode_mtime_sec: Required "inode" ["i_mtime_sec", "__i_mtime.tv_sec", "i_mtime.tv_sec"];
    inode_mtime_nsec: Required "inode" ["i_mtime_nsec", "__i_mtime.tv_nsec", "i_mtime.tv_nsec"];
    super_dev: Required "super_block" ["s_dev"];
    super_magic: Required "super_block" ["s_magic"];

    bprm_file: Required "linux_binprm" ["file"];
    bprm_filename: Required "linux_binprm" ["filename"];
    bprm_interp: Required "linux_binprm" ["interp"];

    bpf_map_id: Required "bpf_map" ["id"];
    bpf_prog_aux: Required "bpf_prog" ["aux"];
    bpf_prog_aux_id: Required "bpf_prog_aux" ["id"];

    sock_family: Required "sock" ["__sk_common.skc_family"];
    sock_state: Required "sock" ["__sk_common.skc_state"];
    sock_daddr: Required "sock" ["__sk_common.skc_daddr"];
    sock_rcv_saddr: Required "sock" ["__sk_common.skc_rcv_saddr"];
    sock_v6_daddr: Required "sock" ["__sk_common.skc_v6_daddr"];
    sock_v6_rcv_saddr: Required "sock" ["__sk_common.skc_v6_rcv_saddr"];
    sock_dport: Required "sock" ["__sk_common.skc_dport"];
    sock_num: Required "sock" ["__sk_common.skc_num"];
    sock_net: Required "sock" ["__sk_common.skc_net"];
    sock_cookie: Required "sock" ["__sk_common.skc_cookie"];
    sock_type: Required "sock" ["sk_type"];
    sock_protocol: Required "sock" ["sk_protocol"];
    sock_err: Required "sock" ["sk_err"];
    sock_kern: Bit "sock" ["sk_kern_sock"];
    inet_sport: Required "inet_sock" ["inet_sport"];
    sock_flags: Required "sock" ["__sk_common.skc_flags"];
    sock_socket: Required "sock" ["sk_socket"];
    tcp_write_seq: Required "tcp_sock" ["write_seq"];
    tcp_is_mptcp: Optional "tcp_sock" ["is_mptcp"];
    tcp_bytes_sent: Required "tcp_sock" ["bytes_sent"];
    tcp_bytes_retrans: Required "tcp_sock" ["bytes_retrans"];
    tcp_bytes_received: Required "tcp_sock" ["bytes_received"];
    mptcp_first: Optional "mptcp_sock" ["first"];
    mptcp_bytes_sent: Optional "mptcp_sock" ["bytes_sent"];
    mptcp_bytes_received: Optional "mptcp_sock" ["bytes_received"];

    task_files: Required "task_struct" ["files"];
    files_fdt: Required "files_struct" ["fdt"];
    fdtable_max: Required "fdtable" ["max_fds"];
    fdtable_fd: Required "fdtable" ["fd"];
    file_private: Required "file" ["private_data"];

    socket_sk: Required "socket" ["sk"];
    socket_state: Required "socket" ["state"];
    socket_file: Required "socket" ["file"];
    socket_alloc_inode: Required "socket_alloc" ["vfs_inode"];
    msghdr_name: Required "msghdr" ["msg_name"];
    msghdr_flags: Required "msghdr" ["msg_flags"];
}
