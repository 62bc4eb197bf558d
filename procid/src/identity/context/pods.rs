//! What the kubelet calls a pod: it keeps the logs of each in a directory
//! `NAMESPACE_NAME_UID`, and makes that before the pod's first container
//! (<https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/kuberuntime/helpers.go>).

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Where the kubelet keeps them, unless told otherwise.
pub const LOGS: &str = "/var/log/pods";
/// The directory is read again so often, at most, while a pod is looked for.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Most directories that are looked at: a node has some hundred pods.
const PODS_MAX: usize = 4_096;
/// Others than the owner may make directories.
const OTHERS_WRITE: u32 = 0o022;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
}

/// The pods of this host, by uid.
#[derive(Debug)]
pub struct Pods {
    directory: PathBuf,
    /// Whose the directory must be.
    owner: u32,
    known: HashMap<String, Arc<Pod>>,
    read_at: Option<Instant>,
}

impl Pods {
    /// The superuser's directory of that path; it need not exist.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            owner: 0,
            known: HashMap::new(),
            read_at: None,
        }
    }

    /// The names of a pod, as far as the kubelet tells.
    pub fn of(&mut self, uid: &str) -> Option<Arc<Pod>> {
        if !self.known.contains_key(uid) && self.read_at.is_none_or(|at| at.elapsed() >= READ_EVERY)
        {
            self.read_at = Some(Instant::now());
            if let Err(error) = self.read() {
                tracing::debug!(%error, "pods have no names");
            }
        }
        self.known.get(uid).map(Arc::clone)
    }

    fn read(&mut self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.directory)?;
        if metadata.uid() != self.owner || metadata.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other("others may write there"));
        }
        self.known.clear();
        for entry in fs::read_dir(&self.directory)?.take(PODS_MAX) {
            let name = entry?.file_name();
            let pod = name.to_str().and_then(parse);
            self.known.extend(pod);
        }
        Ok(())
    }
}

/// Names of Kubernetes have no `_`.
fn parse(directory: &str) -> Option<(String, Arc<Pod>)> {
    let mut parts = directory.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let is_name = |part: &str| {
        let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        !part.is_empty() && part.bytes().all(is_allowed)
    };
    let all = [namespace, name, uid].into_iter().all(is_name);
    (all && parts.next().is_none()).then(|| {
        let pod = Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        (uid.to_owned(), Arc::new(pod))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pods(directory: &tempfile::TempDir) -> Pods {
        Pods {
            owner: fs::metadata(directory.path()).unwrap().uid(),
            ..Pods::at(directory.path().to_owned())
        }
    }

    #[test]
    fn the_kubelets_directories_name_pods() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir(directory.path().join(name)).unwrap();
        for name in [
            "shop_web-0_u1",
            "a_b_c_d",
            "x_y",
            "A_b_u2",
            "__u3",
            "kube-system_etcd.n_u4",
        ] {
            make(name);
        }
        let mut pods = pods(&directory);
        let pod = pods.of("u1").unwrap();
        assert_eq!((&*pod.namespace, &*pod.name), ("shop", "web-0"));
        assert_eq!(pods.of("u4").unwrap().name, "etcd.n");
        for other in ["u2", "u3", "c", "d", "gone"] {
            assert_eq!(pods.of(other), None, "{other}");
        }
        // One that is made later is found, if not at once.
        make("shop_web-1_u5");
        pods.read_at = None;
        assert_eq!(pods.of("u5").unwrap().name, "web-1");
    }

    #[test]
    fn a_directory_that_others_may_write_names_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("shop_web_u1")).unwrap();
        let others = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), others).unwrap();
        assert_eq!(pods(&directory).of("u1"), None);
        let own = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), own).unwrap();
        let owner = fs::metadata(directory.path()).unwrap().uid() + 1;
        let mut of_another = Pods {
            owner,
            ..pods(&directory)
        };
        assert_eq!(of_another.of("u1"), None);
        assert!(pods(&directory).of("u1").is_some());
    }
}
