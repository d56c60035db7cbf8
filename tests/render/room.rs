//! The limits of Patroni's REST interface, with a server like Patroni's.

use std::{fs, process::Command};

use crate::fixture::{HOSTS, cluster, file, rendered};

/// Reads PATH of the file of hosts; prints what it has seen, one line for each.
const PROGRAM: &str = r#"
import gc, http.server, os, socket, socketserver, sys, threading, time
import sitecustomize as room

room.HOSTS, room.SECONDS = sys.argv[1], 1
print("passed on:", "PYTHONPATH" in os.environ)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
    fails = False

    def process_request_thread(self, request, address):
        # As in Patroni 3.0: after a failed handshake nobody shuts the request down.
        if Server.fails:
            raise OSError("no handshake")
        super().process_request_thread(request, address)


server = Server(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
threading.excepthook = lambda told: None
threading.Thread(target=server.serve_forever, daemon=True).start()


def crowd(count):
    return [socket.create_connection(server.server_address) for _ in range(count)]


def stay(sockets):
    def is_open(one):
        one.settimeout(0.01)
        try:
            return one.recv(1) != b""
        except TimeoutError:
            return True
        except OSError:
            return False
    return sum(map(is_open, sockets))


silent = crowd(30)
time.sleep(0.3)
print("a stranger's:", stay(silent))
time.sleep(1.2)
print("after a while:", stay(silent))
Server.fails = True
for _ in range(40):
    stay(crowd(1))
Server.fails = False
time.sleep(1.2)
gc.collect()
again = crowd(1)
time.sleep(0.3)
print("after failures:", stay(again))
time.sleep(1.2)
with open(room.HOSTS, "w") as hosts:
    hosts.write("127.0.0.1  node1\n")
own = crowd(30)
time.sleep(1.5)
print("a host's own:", stay(own))
"#;

#[test]
fn strangers_leave_room_in_patronis_rest_interface() {
    let dir = tempfile::tempdir().unwrap();
    let files = rendered(&cluster(&HOSTS, true));
    let guard = file(&files, "node1", "/etc/pgherd/patroni/sitecustomize.py");
    fs::write(dir.path().join("sitecustomize.py"), guard.content.as_str()).unwrap();
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "# nobody\n").unwrap();
    let output = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(&hosts)
        .env("PYTHONPATH", dir.path())
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said,
        "passed on: False\na stranger's: 4\nafter a while: 0\nafter failures: 1\na host's own: 16\n",
        "{errors}"
    );
    let unit = "/etc/systemd/system/patroni.service.d/pgherd.conf";
    assert!(
        file(&files, "node1", unit)
            .content
            .contains("PYTHONPATH=/etc/pgherd/patroni\n")
    );
}
