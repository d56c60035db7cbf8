//! Reads files of the workspace. The error for a damaged file names it and says what to do.

use std::{fs, path::Path};

use super::{tests::inventory, *};
use crate::inventory::HostName;

/// Contents that a file may have after a full disk, an editor's mistake, or a failed copy.
const GARBAGE: [&[u8]; 7] = [
    b"",
    b"\0\0\0\0",
    b"null",
    b"{}",
    b"[1, 2",
    b"garbage\n",
    b"\xff\xfe\x00",
];

struct Readable {
    /// Relative to the cluster's folder.
    file: &'static str,
    read: fn(&Inventory) -> Result<()>,
}

fn opened(inventory: &Inventory) -> Result<Workspace> {
    Workspace::open(inventory)
}

const FILES: [Readable; 8] = [
    Readable {
        file: SECRETS,
        read: |inventory| opened(inventory)?.secrets().map(|_| ()),
    },
    Readable {
        file: ROTATION,
        read: |inventory| opened(inventory)?.secrets_stage().map(|_| ()),
    },
    Readable {
        file: ssh_rotation::SSH_STAGE,
        read: |inventory| opened(inventory)?.ssh_stage().map(|_| ()),
    },
    Readable {
        file: TLS,
        read: |inventory| opened(inventory)?.tls_stage().map(|_| ()),
    },
    Readable {
        file: BROKEN,
        read: |inventory| opened(inventory)?.left_broken().map(|_| ()),
    },
    Readable {
        file: "pki/ca.crt",
        read: |inventory| opened(inventory)?.pki().map(|_| ()),
    },
    Readable {
        file: "pki/ca.key",
        read: |inventory| opened(inventory)?.pki().map(|_| ()),
    },
    Readable {
        file: "launches/node1",
        read: |inventory| {
            let launches = Launches::of(inventory)?;
            launches.begin(&HostName::new("node1")).map(|_| ())
        },
    },
];

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    for Readable { file, read } in FILES {
        for garbage in GARBAGE {
            let dir = tempfile::tempdir().unwrap();
            let inventory = inventory(dir.path());
            let workspace = Workspace::open(&inventory).unwrap();
            workspace.pki().unwrap();
            let path = workspace.dir().join(file);
            drop(workspace);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, garbage).unwrap();
            let shown = String::from_utf8_lossy(garbage);
            let Err(error) = read(&inventory) else {
                panic!("{file} with {shown:?} is read");
            };
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            let said = format!("{} {:?}", error, error.causes());
            assert!(said.contains(name), "{file} with {shown:?}: {said}");
            assert!(!error.hints().is_empty(), "{file} with {shown:?}: {said}");
            // The file is left unchanged: it may be all that is left.
            assert_eq!(fs::read(&path).unwrap(), garbage, "{file}");
        }
    }
}
