//! Timing by `BPF_PROG_TEST_RUN`.
//!
//! The kernel's own figure leaves out the time in which the call did not have its CPU, but is cut to whole nanoseconds,
//! up to a sixth of an empty program; the wall clock around the call has the decimals. So a figure is the wall clock's,
//! kept within the kernel's nanosecond. Classes take turns, so that a busy moment of the machine meets all.

use std::error::Error;
use std::time::Instant;

use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use sensor::capture::kernel::Kernel;
use sensor::capture::ring::Ring;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::BenchStream;

use super::classes::{ACK, CLASSES, Class};
use super::totals;

/// Programs of the bench's object that the daemon does not load.
const PROGRAMS: [&str; 3] = ["bench_empty", "bench_bare", "bench_stream"];

/// The loaded object, ready to be timed.
pub struct Runner {
    kernel: Kernel,
    events: Ring,
    bytes: Ring,
    port: u16,
    /// Where the object counts what; `None` where that is not known.
    counters: Option<Vec<Option<usize>>>,
}

/// Figures of one class, nanoseconds a packet.
pub struct Figure {
    /// The class.
    pub class: &'static Class,
    /// Of each call, in their order.
    pub calls: Vec<f64>,
}

impl Figure {
    /// The least: what the code costs when nothing disturbs it.
    pub fn min(&self) -> f64 {
        self.calls.iter().copied().min_by(f64::total_cmp).unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        median(self.calls.clone())
    }
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `calls` figures of every class whose name has `filter` in it, one class after the other, `calls` times; by every
/// runner, which take turns, each first as often as the others.
pub fn all(
    runners: &mut [Runner],
    calls: u32,
    repeat: Option<u32>,
    filter: &str,
) -> Result<Vec<Vec<Figure>>, Box<dyn Error>> {
    let wanted = |index: usize, class: &Class| index < 2 || class.name.starts_with(ACK) || class.name.contains(filter);
    let classes: Vec<_> = CLASSES.iter().enumerate().filter(|(index, class)| wanted(*index, class)).collect();
    let blank = || classes.iter().map(|(_, class)| Figure { class, calls: Vec::new() }).collect::<Vec<_>>();
    let mut figures: Vec<Vec<Figure>> = runners.iter().map(|_| blank()).collect();
    for call in 0..calls as usize {
        for (index, (_, class)) in classes.iter().enumerate() {
            let count = repeat.map_or(class.repeat, |most| most.min(class.repeat)) & !1;
            for turn in 0..runners.len() {
                let who = (call + index + turn) % runners.len();
                let Some(runner) = runners.get_mut(who) else { continue };
                let figure = runner.call(class, count.max(2))?;
                if let Some(place) = figures.get_mut(who).and_then(|figures| figures.get_mut(index)) {
                    place.calls.push(figure);
                }
            }
        }
    }
    Ok(figures)
}

impl Runner {
    /// Takes a loaded and configured kernel side; loads the bench's own programs.
    pub fn new(mut kernel: Kernel, events: Ring, bytes: Ring) -> Result<Self, Box<dyn Error>> {
        for name in PROGRAMS {
            kernel.program(name)?.load()?;
        }
        Ok(Self { kernel, events, bytes, port: 1024, counters: Some(own()) })
    }

    /// The kernel side back.
    pub fn into_kernel(self) -> (Kernel, Ring, Ring) {
        (self.kernel, self.events, self.bytes)
    }

    /// Says in which order the object counts: labels, a line each. Without them the order is this program's if as many
    /// counters are there; otherwise what the object counts cannot be checked, which is what the answer says.
    pub fn counts_as(&mut self, labels: Option<&str>) -> bool {
        let found = |labels: &str| {
            Counter::ALL.iter().map(|counter| labels.lines().position(|label| label == counter.label())).collect()
        };
        self.counters = match labels {
            Some(labels) => Some(found(labels)),
            None if self.totals().is_ok_and(|totals| totals.len() == Counter::COUNT) => Some(own()),
            None => None,
        };
        self.counters.is_some()
    }

    /// What the object counted, in its order.
    fn totals(&self) -> Result<Vec<u64>, Box<dyn Error>> {
        totals::read(self.kernel.loaded())
    }

    /// Instructions that the verifier looked at, by program.
    pub fn verified(&mut self) -> Result<Vec<(&'static str, u32)>, Box<dyn Error>> {
        Ok(self.kernel.verified()?)
    }

    /// One call: a fresh connection, then `runs` packets of the class.
    fn call(&mut self, class: &Class, runs: u32) -> Result<f64, Box<dyn Error>> {
        self.port = self.port.checked_add(1).unwrap_or(1024);
        let (first, frame) = (class.frames)(self.port);
        for frame in first {
            self.test_run("authsensor_ingress", &frame, 1)?;
        }
        let mut stream: Array<_, [u32; 4]> = Array::try_from(self.kernel.ebpf().map_mut("STREAM").ok_or("no STREAM")?)?;
        let BenchStream { advance, cut, mode, runs: done } =
            BenchStream { cut: class.cut, mode: class.mode, ..BenchStream::default() };
        stream.set(0, [advance, cut, mode, done], 0)?;
        self.drain();
        let before = self.totals()?;
        let elapsed = self.test_run(class.program, &frame, runs)?;
        let after = self.totals()?;
        self.drain();
        if let Some(counters) = &self.counters {
            check(class, runs, counters, (&before, &after))?;
        }
        Ok(elapsed)
    }

    /// Runs a program over a frame; nanoseconds a run.
    fn test_run(&mut self, program: &'static str, frame: &[u8], repeat: u32) -> Result<f64, Box<dyn Error>> {
        let program: &mut SchedClassifier = self.kernel.program(program)?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let started = Instant::now();
        let result = program.test_run(options)?;
        let elapsed = started.elapsed().as_secs_f64() * 1e9 / f64::from(repeat);
        let kernel = f64::from(result.duration.subsec_nanos());
        Ok(elapsed.clamp(kernel, kernel + 1.0))
    }

    /// Empties the rings, as the daemon does every few milliseconds.
    fn drain(&mut self) {
        for ring in [&mut self.events, &mut self.bytes] {
            let until = ring.produced();
            ring.read(until, |_| {});
        }
    }

    /// True if run time statistics are on for the whole machine: then every figure has their cost in it.
    pub fn disturbed(&mut self) -> bool {
        self.kernel
            .program("bench_empty")
            .ok()
            .and_then(|program| program.info().ok())
            .is_some_and(|info| info.run_count() > 0)
    }
}

/// This program's own counters stand where it says.
fn own() -> Vec<Option<usize>> {
    (0..Counter::COUNT).map(Some).collect()
}

/// What was timed must be what the class is about.
fn check(
    class: &Class,
    runs: u32,
    counters: &[Option<usize>],
    (before, after): (&[u64], &[u64]),
) -> Result<(), Box<dyn Error>> {
    let counted = |counter: Counter| {
        let Some(index) = counters.get(counter as usize).copied().flatten() else { return 0 };
        after.get(index).copied().unwrap_or(0).saturating_sub(before.get(index).copied().unwrap_or(0))
    };
    // A head in two segments counts once in two runs.
    let messages = u64::from(if class.cut == 0 { runs } else { runs / 2 });
    for (counter, each) in class.counts {
        let want = u64::from(*each) * messages;
        let got = counted(*counter);
        if got != want {
            return Err(format!("{}: {} should have counted {want}, but did {got}", class.name, counter.label()).into());
        }
    }
    let lost = counted(Counter::LostEventRing);
    if lost == 0 { Ok(()) } else { Err(format!("{}: the event ring was full {lost} times", class.name).into()) }
}
