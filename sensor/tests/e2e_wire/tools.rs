//! curl and wrk.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::process::{PATIENCE, Running, command};
use crate::servers::{V4, V6};
use crate::support::net::Net;

/// One run of curl: everything in it goes over one connection, as far as the server lets it. `@` stands for the server.
const RUNS: &[&[&str]] = &[
    &["@/files/small.txt", "@/files/page.html", "@/files/small.txt?q=%22a%22&b=';x", "@/missing/%2e%2e/page"],
    &["-I", "@/files/small.txt", "@/files/10m.bin", "@/missing", "--next", "@/files/page.html"],
    &["-r", "0-99", "@/files/1m.bin", "--next", "-r", "0-9,2000-2999,-5", "@/files/1m.bin"],
    &["-r", "9000000-", "@/files/1m.bin", "--next", "@/files/small.txt"],
    &["-z", "upload", "@/files/page.html", "@/files/small.txt", "--next", "@/files/small.txt"],
    &["-L", "@/moved", "@/moved", "@/files/small.txt"],
    &["-0", "@/files/page.html", "@/app/echo"],
    &["-H", "Connection: close", "@/files/page.html", "@/files/small.txt"],
    &["@/files/10m.bin", "@/files/1m.bin", "@/app/big", "@/files/small.txt"],
    &[
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        "@upload",
        "@/app/echo",
        "@/app/echo?again",
        "--next",
        "@/files/small.txt",
    ],
    &["-H", "Transfer-Encoding: chunked", "--data-binary", "@upload", "@/app/echo", "--next", "@/files/small.txt"],
    &[
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Expect: 100-continue",
        "-T",
        "upload",
        "@/app/chunked",
        "--next",
        "@/app/hints",
    ],
    &["-H", "Expect:", "--data-binary", "@upload", "@/app/echo", "@/app/chunked"],
    &["--data-binary", "@upload", "@/files/small.txt", "--next", "@/files/page.html"],
    &[
        "-d",
        "user=kim&password=hunter2",
        "@/app/login",
        "--next",
        "-b",
        "SESSION=wire-session-0123456789",
        "@/files/page.html",
    ],
    &[
        "-H",
        "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.c2lnbmF0dXJl",
        "@/files/page.html",
        "@/files/page.html?access_token=abc123",
    ],
    &["-u", "kim:hunter2", "@/files/small.txt", "@/app/echo"],
    &[
        "-X",
        "DELETE",
        "@/app/empty",
        "--next",
        "-X",
        "OPTIONS",
        "@/app/echo",
        "--next",
        "-X",
        "PATCH",
        "-d",
        "x",
        "@/app/echo",
    ],
    &["@/app/hints", "@/app/empty", "@/app/chunked", "@/app/hints", "-I", "@/app/chunked"],
    &["--http1.0", "-H", "Host:", "@/files/small.txt"],
    &["--compressed", "-A", "", "-H", "Accept:", "@/files/page.html", "@/app/chunked"],
];

/// Every run of curl, over both families.
pub fn curl(net: &Net, folder: &Path) {
    fs::write(folder.join("upload"), vec![b'u'; 2 << 20]).unwrap();
    for (number, run) in RUNS.iter().enumerate() {
        let base = format!("http://{}", if number % 4 == 3 { V6 } else { V4 });
        let mut words = vec!["curl".to_owned()];
        let common = ["-sS", "--globoff", "--path-as-is", "--max-time", "15", "-H", "X-Long: "].map(str::to_owned);
        words.extend(common);
        words.last_mut().unwrap().push_str(&"l".repeat(number * 150));
        for word in *run {
            if let Some(path) = word.strip_prefix("@/") {
                words.extend(["-o".to_owned(), "/dev/null".to_owned(), format!("{base}/{path}")]);
            } else {
                words.push((*word).to_owned());
            }
            if *word == "--next" {
                words.extend(["-sS", "--globoff", "--path-as-is", "--max-time", "15"].map(str::to_owned));
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = command(&net.client, &words).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl {run:?}: {} {said}", output.status);
    }
}

/// Each connection is a thread of its own, and each thread ends with its last answer: no request is cut off.
pub fn wrk(net: &Net, folder: &Path, connections: usize, requests: usize, logged: &dyn Fn() -> usize) {
    let script = format!(
        r#"
local paths = {{ "/files/small.txt", "/files/page.html", "/missing", "/moved", "/files/small.txt" }}
local sent, heard = 0, 0
function request()
    sent = sent + 1
    local headers = {{ ["Cookie"] = "theme=dark; SESSION=wrk-" .. (sent % 50) }}
    return wrk.format("GET", paths[sent % #paths + 1] .. "?wrk=" .. sent, headers)
end
function response()
    heard = heard + 1
    if heard == {requests} then wrk.thread:stop() end
end
"#
    );
    fs::write(folder.join("wrk.lua"), script).unwrap();
    let count = connections.to_string();
    let words = ["wrk", "-t", &count, "-c", &count, "-d", "60s", "-s", "wrk.lua", &format!("http://{V4}/")];
    let mut command = command(&net.client, &words);
    command.current_dir(folder);
    let mut wrk = Running::start("wrk", command, folder);
    // If the log falls short, the comparison says of what.
    let end = Instant::now() + PATIENCE / 2;
    while logged() < connections * requests && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    // All threads are done, but it would sleep until its time is over.
    wrk.stop(Signal::SIGINT);
}
