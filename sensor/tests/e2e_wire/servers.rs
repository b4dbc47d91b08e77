//! The servers, Debian's own, unprivileged, with configurations of this test's, and their access logs.
//!
//! Each answers `/files/` from a folder (haproxy through an nginx behind it), `/moved` with a redirect, and `/app/` from
//! the origin. Each line of a log has five fields between tabs: client address, client port, status, `Host` and the request
//! line as it came. (Body bytes are not among them: the sensor tells none.)

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::origin;
use crate::process::{Running, unprivileged};
use crate::support::net::{Net, inside};

/// Where the server under test listens.
pub const V4: &str = "192.0.2.10:8080";
pub const V6: &str = "[2001:db8::10]:8080";
/// The nginx behind haproxy.
const BEHIND: &str = "127.0.0.1:9001";
/// Bytes of the smallest file.
pub const SMALL: usize = 180;
/// Files that are served, by name and bytes.
pub const FILES: [(&str, u64); 4] =
    [("small.txt", SMALL as u64), ("page.html", 20_000), ("1m.bin", 1 << 20), ("10m.bin", 10 << 20)];

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Apache,
    Haproxy,
}

impl Kind {
    pub fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "apache2",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A running server.
pub struct Server {
    running: Running,
    /// The nginx behind haproxy.
    behind: Option<Running>,
    log: PathBuf,
}

impl Server {
    /// Starts it in the server's namespace, once it accepts connections.
    pub fn start(kind: Kind, net: &Net, folder: &Path) -> Self {
        content(folder);
        origin::start(&net.server);
        let behind = (kind == Kind::Haproxy).then(|| nginx(net, folder, "behind", &[BEHIND], "access_log off;"));
        let both = [V4, V6];
        let (running, log) = match kind {
            Kind::Nginx => {
                let log = format!("access_log {}/access.log wire;", folder.display());
                (nginx(net, folder, "nginx", &both, &log), folder.join("access.log"))
            }
            Kind::Apache => (apache(net, folder), folder.join("access.log")),
            Kind::Haproxy => {
                let running = haproxy(net, folder);
                let log = running.out.clone();
                (running, log)
            }
        };
        Self { running, behind, log }
    }

    /// The file of the access log.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The access log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How many lines of the log have `text`.
    pub fn lines_with(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.running.stop(Signal::SIGTERM);
        if let Some(behind) = self.behind.as_mut() {
            behind.stop(Signal::SIGTERM);
        }
    }
}

fn content(folder: &Path) {
    let files = folder.join("root/files");
    fs::create_dir_all(&files).unwrap();
    for (name, length) in FILES {
        File::create(files.join(name)).unwrap().set_len(length).unwrap();
    }
}

/// Starts `words` and waits until all of `addresses` accept.
fn up(name: &str, net: &Net, folder: &Path, words: &[&str], addresses: &[&str]) -> Running {
    let mut running = Running::start(name, unprivileged(&net.server, words), folder);
    for address in addresses {
        let address: SocketAddr = address.parse().unwrap();
        // A connection without a byte is in no log.
        running.wait_until("listening", |_| inside(&net.server, || std::net::TcpStream::connect(address).is_ok()));
    }
    running
}

fn nginx(net: &Net, folder: &Path, name: &str, listen: &[&str], access_log: &str) -> Running {
    let at = folder.display();
    let listens = ["listen ", &listen.join("; listen "), ";"].concat();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        temporary.extend([kind, "_temp_path ", &folder.display().to_string(), "/", name, "-", kind, ";"]);
    }
    // To this nginx a 103 from the origin would be the answer itself, so the origin is not asked for hints.
    let text = format!(
        "daemon off; master_process off; pid {at}/{name}.pid; error_log {at}/{name}.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n{temporary}\n\
         log_format wire escape=none '$remote_addr\t$remote_port\t$status\t$http_host\t$request';\n\
         {access_log}\n\
         sendfile on; tcp_nopush on; if_modified_since before; keepalive_requests 100000; client_max_body_size 64m;\n\
         server {{ {listens}\n\
         root {at}/root;\n\
         location = /moved {{ return 302 /files/small.txt; }}\n\
         location = /app/upgrade {{ proxy_http_version 1.1; proxy_set_header Connection upgrade;\n\
         proxy_set_header Upgrade websocket; proxy_pass http://{origin}; }}\n\
         location = /app/hints {{ return 200 hints; }}\n\
         location /app/ {{ proxy_http_version 1.1; proxy_request_buffering off; proxy_pass http://{origin}; }}\n\
         }} }}\n",
        origin = origin::ADDRESS,
    );
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, text).unwrap();
    let (file, errors) = (file.display().to_string(), format!("{at}/{name}.log"));
    up(name, net, folder, &["nginx", "-p", &at.to_string(), "-c", &file, "-e", &errors], listen)
}

fn apache(net: &Net, folder: &Path) -> Running {
    const MODULES: [&str; 7] = ["mpm_event", "authz_core", "alias", "proxy", "proxy_http", "reqtimeout", "dir"];
    let at = folder.display();
    let mut modules = String::new();
    for name in MODULES {
        modules.extend(["LoadModule ", name, "_module /usr/lib/apache2/modules/mod_", name, ".so\n"]);
    }
    let text = format!(
        "ServerRoot {at}\nPidFile {at}/apache.pid\nServerName shop.example\nListen {V4}\nListen {V6}\n{modules}\
         DefaultRuntimeDir {at}\nErrorLog {at}/apache.log\nDocumentRoot {at}/root\n\
         <Directory {at}/root>\nRequire all granted\n</Directory>\n\
         StartServers 1\nThreadsPerChild 32\nMaxRequestWorkers 32\n\
         KeepAlive On\nMaxKeepAliveRequests 0\nEnableSendfile On\n\
         LogFormat \"%a\\t%{{remote}}p\\t%>s\\t%{{Host}}i\\t%r\" wire\nCustomLog {at}/access.log wire\n\
         Redirect 302 /moved /files/small.txt\nProxyPass /app/ http://{origin}/app/ upgrade=websocket\n",
        origin = origin::ADDRESS,
    );
    let file = folder.join("apache.conf");
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    // One process with threads: what it is killed with cannot leave a child behind.
    up("apache", net, folder, &["apache2", "-f", &file, "-DFOREGROUND", "-DONE_PROCESS"], &[V4, V6])
}

fn haproxy(net: &Net, folder: &Path) -> Running {
    // One thread: with two, its log on standard output once stayed a few lines short of what was asked.
    let text = format!(
        "global\n  log stdout len 32768 format raw local0 info\n  nbthread 1\n  maxconn 500\n\
         defaults\n  mode http\n  log global\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
         frontend site\n  bind {V4}\n  bind {V6} v6only\n  option dontlognull\n  option http-ignore-probes\n\
         \x20 capture request header Host len 128\n\
         \x20 log-format \"%ci\\t%cp\\t%ST\\t%[capture.req.hdr(0)]\\t%r\"\n\
         \x20 http-request redirect location /files/small.txt if {{ path /moved }}\n\
         \x20 use_backend origin if {{ path_beg /app/ }}\n  default_backend nginx\n\
         backend nginx\n  server behind {BEHIND}\nbackend origin\n  server origin {origin}\n",
        origin = origin::ADDRESS,
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    up("haproxy", net, folder, &["haproxy", "-db", "-f", &file], &[V4, V6])
}
