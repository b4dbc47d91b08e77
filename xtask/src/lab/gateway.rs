//! The gateway: Debian's own nginx with a configuration of the lab, in front of the origin.
//!
//! It asks the origin whether a token's *signature* is right before it lets a member's page through, and nothing
//! else: the hole of 2025. Its access log is the lab's independent count of what really happened.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::{Doing, LabError, Result, tail};
use super::interrupt;
use super::process::{Running, start};
use super::token::Key;
use super::world::World;

const NGINX: &str = "/usr/sbin/nginx";
/// Where the origin listens, inside the gateway's namespace.
const ORIGIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
/// The service's port.
pub const PORT: u16 = 80;
const UP_TIME: Duration = Duration::from_secs(10);

/// nginx and the origin behind it.
pub struct Gateway {
    nginx: Running,
    origin: Running,
    access_log: PathBuf,
}

/// One line of the access log, as far as it is compared.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Request method.
    pub method: String,
    /// Request target as on the wire.
    pub uri: String,
    /// Status.
    pub status: u16,
    /// `Content-Type` of the response.
    pub content_type: String,
}

impl Gateway {
    /// Starts origin and nginx with their files in `folder`; returns once nginx accepts connections.
    pub fn start(world: &World, folder: &Path, key: &Key) -> Result<Self> {
        if !Path::new(NGINX).exists() {
            return Err(LabError::Missing("nginx", "nginx-light"));
        }
        let (configuration, access_log) = (folder.join("nginx.conf"), folder.join("access.log"));
        let key_file = folder.join("signing.key");
        fs::write(&key_file, key.0).doing("writing the signing key")?;
        let mut origin = Command::new(std::env::current_exe().doing("finding this program")?);
        origin.arg("lab-origin").arg("--listen").arg(ORIGIN.to_string()).arg("--key").arg(&key_file);
        let mut origin = start("the origin", origin, &world.gateway, &folder.join("origin.log"))?;
        wait_for(world, ORIGIN, "the origin", &mut origin)?;

        fs::write(&configuration, configuration_text(folder)).doing("writing nginx.conf")?;
        let mut nginx = Command::new(NGINX);
        nginx.arg("-p").arg(folder).arg("-c").arg(&configuration).arg("-e").arg(folder.join("error.log"));
        let mut nginx = start("nginx", nginx, &world.gateway, &folder.join("nginx.log"))?;
        // A connection that carries no byte leaves no line in the access log.
        wait_for(world, SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), "nginx", &mut nginx)?;
        Ok(Self { nginx, origin, access_log })
    }

    /// An error when nginx or the origin has ended.
    pub fn check(&mut self) -> Result<()> {
        self.nginx.check()?;
        self.origin.check()
    }

    /// The access log so far.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let text = fs::read_to_string(&self.access_log).doing("reading nginx's access log")?;
        text.lines()
            .map(|line| serde_json::from_str(line).map_err(|e| LabError::Http(format!("access log {line:?}: {e}"))))
            .collect()
    }
}

fn wait_for(world: &World, address: SocketAddr, name: &'static str, process: &mut Running) -> Result<()> {
    let end = Instant::now() + UP_TIME;
    loop {
        let up = world.gateway.inside(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()))?;
        process.check()?;
        if up {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(LabError::NotUp { what: name, seconds: UP_TIME.as_secs(), detail: tail(process.log()) });
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
}

fn configuration_text(folder: &Path) -> String {
    // Everything that nginx would write elsewhere by default is given a place in the lab's folder.
    format!(
        r#"user www-data;
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    client_body_temp_path {folder}/t-body;
    proxy_temp_path {folder}/t-proxy;
    fastcgi_temp_path {folder}/t-fastcgi;
    uwsgi_temp_path {folder}/t-uwsgi;
    scgi_temp_path {folder}/t-scgi;
    log_format lab escape=json '{{"time":$msec,"method":"$request_method","uri":"$request_uri","status":$status,'
        '"content_type":"$sent_http_content_type","remote":"$remote_addr","bytes":$body_bytes_sent,'
        '"request":"$request","connection":$connection,"request_time":$request_time}}';
    access_log {folder}/access.log lab;
    large_client_header_buffers 4 16k;
    keepalive_timeout 75s;
    tcp_nodelay on;
    server_tokens off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    upstream origin {{ server {ORIGIN}; keepalive 32; }}
    server {{
        listen 0.0.0.0:{PORT} backlog=1024;
        listen [::]:{PORT} backlog=1024 ipv6only=on;
        server_name store.example;
        location / {{ proxy_pass http://origin; }}
        # The signature is checked. Whether a login ever issued the token is not.
        location /members/ {{
            auth_request /_gateway/check;
            proxy_pass http://origin;
        }}
        location = /_gateway/check {{
            internal;
            proxy_pass http://origin;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
        }}
    }}
}}
"#,
        folder = folder.display()
    )
}
