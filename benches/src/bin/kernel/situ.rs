//! In situ: the shipped programs on a veth pair between two network namespaces, timed by the kernel (`bpf_stats`).
//!
//! Caches are as cold as a TCP stack leaves them, packets are not linear, segments are super-packets. The kernel's two
//! clock reads a run are in every figure: the first row, an empty program in the same place, shows them. The namespaces
//! belong to two threads and vanish with them.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use aya::programs::TcAttachType;
use benches::heads;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use sensor::capture::kernel::Kernel;
use sensor::capture::ring::Ring;

type Failure = Box<dyn Error + Send + Sync>;

/// Requests of one workload.
const REQUESTS: usize = 20_000;
/// Bytes of one transfer.
const BULK: u64 = 1 << 30;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Figures of one workload.
pub struct Situ {
    /// Its name.
    pub name: &'static str,
    /// Nanoseconds a packet that arrives.
    pub ingress: f64,
    /// Nanoseconds a packet that leaves.
    pub egress: f64,
    /// Packets, both ways.
    pub packets: u64,
}

/// What goes over one connection.
#[derive(Clone, Copy)]
enum Traffic {
    /// Request bytes, the length of the first of two writes (or 0), and how many heads they are.
    Requests(fn() -> Vec<u8>, usize, usize),
    /// The client sends a body.
    Upload,
    /// The service sends a body.
    Download,
}

struct Workload {
    name: &'static str,
    port: u16,
    traffic: Traffic,
}

const fn on_service(name: &'static str, traffic: Traffic) -> Workload {
    Workload { name, port: 8080, traffic }
}

const WORKLOADS: [Workload; 8] = [
    Workload { name: "not a service: 1 GiB", port: 5432, traffic: Traffic::Upload },
    on_service("upload: bodies arrive, ACKs leave", Traffic::Upload),
    on_service("download: ACKs arrive, bodies leave", Traffic::Download),
    on_service("requests with JWT, responses", Traffic::Requests(heads::with_jwt, 0, 1)),
    on_service("requests with session cookie, responses", Traffic::Requests(heads::with_session, 0, 1)),
    on_service("requests without credential, responses", Traffic::Requests(heads::without_credential, 0, 1)),
    on_service("two requests with JWT in one segment", Traffic::Requests(two, 0, 2)),
    on_service("requests with JWT in two segments", Traffic::Requests(heads::with_jwt, 412, 1)),
];

fn two() -> Vec<u8> {
    [heads::with_jwt(), heads::with_jwt()].concat()
}

/// Runs every workload.
pub fn measure(kernel: Kernel, events: Ring, bytes: Ring) -> Result<Vec<Situ>, Box<dyn Error>> {
    let server = thread::spawn(move || serve(kernel, events, bytes));
    let result = server.join().map_err(|_| "the thread of the service's namespace ended early")?;
    result.map_err(|error| -> Box<dyn Error> { error })
}

/// In the service's namespace.
fn serve(mut kernel: Kernel, events: Ring, bytes: Ring) -> Result<Vec<Situ>, Failure> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let (orders, received) = sync_channel::<Workload>(1);
    let (ready, answer) = sync_channel::<Result<i32, Failure>>(1);
    let client = thread::spawn(move || ask(&received, &ready));
    let peer = answer.recv()??;
    ip(&format!("link add srv0 type veth peer name cli0 netns {peer}"))?;
    ip(&format!("addr add {SERVER}/24 dev srv0"))?;
    ip("link set srv0 up")?;

    let mut results = Vec::new();
    let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
    let empty = kernel.program("bench_empty")?;
    let link = empty.attach("srv0", TcAttachType::Ingress)?;
    run(&orders, &answer, Workload { name: "", ..WORKLOADS[3] })?;
    let info = empty.info()?;
    let (time, count) = (info.run_time(), info.run_count());
    results.push(Situ {
        name: "empty program",
        ingress: each(nanoseconds(time), count),
        egress: f64::NAN,
        packets: count,
    });
    empty.detach(link)?;

    kernel.attach("srv0")?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| drain(events, bytes, &stop));
        let outcome = WORKLOADS.into_iter().try_for_each(|workload| {
            let name = workload.name;
            let before = kernel.run_stats();
            run(&orders, &answer, workload)?;
            results.push(difference(name, &before, &kernel.run_stats()));
            Ok(())
        });
        stop.store(true, Ordering::Release);
        outcome
    })
    .and_then(|()| {
        drop(orders);
        client.join().map_err(|_| Failure::from("the client's thread ended early"))?;
        drop(stats);
        Ok(results)
    })
}

/// The service's side of one workload; returns once the client is through as well.
fn run(
    orders: &SyncSender<Workload>,
    answer: &Receiver<Result<i32, Failure>>,
    workload: Workload,
) -> Result<(), Failure> {
    let listener = TcpListener::bind((SERVER, workload.port))?;
    let traffic = workload.traffic;
    orders.send(workload)?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 18];
    match traffic {
        Traffic::Requests(request, _, heads_in_it) => {
            let request = buffer.get_mut(..request().len()).ok_or("a request larger than the buffer")?;
            let response = heads::response(0).repeat(heads_in_it);
            for _ in 0..REQUESTS {
                stream.read_exact(request)?;
                stream.write_all(&response)?;
            }
        }
        Traffic::Upload => while stream.read(&mut buffer)? > 0 {},
        Traffic::Download => {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err("no request".into());
            }
            stream.write_all(&heads::response(BULK))?;
            send(&mut stream, &buffer)?;
        }
    }
    drop(stream);
    answer.recv()?.map(|_| ())
}

/// In the client's namespace: says that it is there, then does what it is told.
fn ask(orders: &Receiver<Workload>, ready: &SyncSender<Result<i32, Failure>>) {
    let told = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid().as_raw()).map_err(Failure::from);
    if ready.send(told).is_err() {
        return;
    }
    let mut is_up = false;
    while let Ok(workload) = orders.recv() {
        let up =
            if is_up { Ok(()) } else { ip("addr add 10.77.0.2/24 dev cli0").and_then(|()| ip("link set cli0 up")) };
        is_up = true;
        let done = up.and_then(|()| request(&workload)).map(|()| 0);
        if ready.send(done).is_err() {
            return;
        }
    }
}

fn request(workload: &Workload) -> Result<(), Failure> {
    let mut stream = TcpStream::connect((SERVER, workload.port))?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![b'x'; 1 << 18];
    match workload.traffic {
        Traffic::Requests(request, cut, heads_in_it) => {
            let (request, response) = (request(), heads::response(0).repeat(heads_in_it));
            let (first, rest) = request.split_at(cut);
            let answer = buffer.get_mut(..response.len()).ok_or("a response larger than the buffer")?;
            for _ in 0..REQUESTS {
                stream.write_all(first)?;
                stream.write_all(rest)?;
                stream.read_exact(answer)?;
            }
        }
        Traffic::Upload => {
            stream.write_all(&heads::upload(BULK))?;
            send(&mut stream, &buffer)?;
        }
        Traffic::Download => {
            stream.write_all(&heads::without_credential())?;
            while stream.read(&mut buffer)? > 0 {}
        }
    }
    Ok(())
}

/// [`BULK`] bytes.
fn send(stream: &mut TcpStream, buffer: &[u8]) -> Result<(), Failure> {
    for _ in 0..BULK / buffer.len() as u64 {
        stream.write_all(buffer)?;
    }
    Ok(())
}

/// Reads the rings as often as the daemon does.
fn drain(mut events: Ring, mut bytes: Ring, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        for ring in [&mut events, &mut bytes] {
            let until = ring.produced();
            ring.read(until, |_| {});
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn ip(arguments: &str) -> Result<(), Failure> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {arguments}`: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
fn each(time: u64, count: u64) -> f64 {
    if count == 0 { f64::NAN } else { time as f64 / count as f64 }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Run time and count of a program: see [`Kernel::run_stats`].
type Stats = [(&'static str, u64, u64)];

fn difference(name: &'static str, before: &Stats, after: &Stats) -> Situ {
    let of = |stats: &Stats, label: &str| {
        stats.iter().find(|(name, _, _)| *name == label).map_or((0, 0), |(_, time, count)| (*time, *count))
    };
    let way = |label: &str| {
        let ((time0, count0), (time1, count1)) = (of(before, label), of(after, label));
        (each(time1.saturating_sub(time0), count1.saturating_sub(count0)), count1.saturating_sub(count0))
    };
    let ((ingress, arrived), (egress, left)) = (way("ingress"), way("egress"));
    Situ { name, ingress, egress, packets: arrived + left }
}
