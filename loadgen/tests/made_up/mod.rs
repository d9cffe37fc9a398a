//! Reports as runs leave them, of which every figure is made up.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::time::Duration;

use ringpost_loadgen::measure::{
    ErrorFigures, Figures, GeneratorFigures, Handshakes, Moment, Percentiles, ServerFigures, Stage,
    Stages,
};
use ringpost_loadgen::plan::Mode;
use ringpost_loadgen::report::{Case, Environment, Ratio, Report, RoundFigures, Spread, Tickets};

/// Whether messages are due at certain times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    Open,
    Closed,
}

/// Everything that is compared: ten cases and four ratios.
pub fn comparison(pace: Loop) -> Report {
    let mut cases = Vec::new();
    for messages in [1, 20] {
        cases.push(case(Mode::Plain, Tickets::None, messages, pace));
        for tickets in [Tickets::Full, Tickets::Resumed] {
            for mode in [Mode::Starttls, Mode::Tls] {
                cases.push(case(mode, tickets, messages, pace));
            }
        }
    }
    let mut ratios = Vec::new();
    for messages in [1, 20] {
        for (tickets, dearer) in [(Tickets::Full, 1.05), (Tickets::Resumed, 1.09)] {
            let dearer = if messages == 1 { dearer } else { 1.005 };
            ratios.push(Ratio {
                tickets,
                messages_per_session: messages,
                sessions_per_second: Spread::of([0.98, 1.0, 1.02].map(|pair| pair / dearer))
                    .unwrap(),
                server_cpu_us_per_session: Spread::of(
                    [0.99, 0.995, 1.0, 1.01].map(|pair| pair * dearer),
                ),
                session_p50: Some(dearer * 1.01),
                session_p99: Some(dearer * 1.06),
            });
        }
    }
    Report {
        environment: environment("ringpost-loadgen compare --html report.html --json report.json"),
        cases,
        ratios,
    }
}

/// One case, and nothing to compare it with.
pub fn run(pace: Loop) -> Report {
    Report {
        environment: environment("ringpost-loadgen run --target 127.0.0.1:2525 --mode starttls"),
        cases: vec![case(Mode::Starttls, Tickets::Resumed, 1, pace)],
        ratios: Vec::new(),
    }
}

/// A run in which nothing came about.
pub fn nothing() -> Report {
    let mut report = run(Loop::Closed);
    report.cases[0].mode = Mode::Plain;
    report.cases[0].tickets = Tickets::None;
    report.cases[0].name = "plain · 1".to_owned();
    report.cases[0].rounds = Vec::new();
    report.cases[0].figures = Figures {
        seconds: 0.0,
        sessions: 0,
        messages: 0,
        failed: 0,
        unsent: 0,
        octets: 0,
        sessions_per_second: 0.0,
        messages_per_second: 0.0,
        latency_us: BTreeMap::new(),
        errors: BTreeMap::new(),
        handshakes: Handshakes::default(),
        generator: GeneratorFigures::default(),
        server: None,
        timeline: Vec::new(),
        warnings: Vec::new(),
    };
    report
}

pub fn environment(command: &str) -> Environment {
    Environment::read(
        command,
        "ringpost serve --listen 127.0.0.1:2525 --listen-tls 127.0.0.1:4650 --deliver discard",
        "messages of 2.00 KiB, 64 connections, closed loop",
    )
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "made-up figures need not be exact"
)]
pub fn case(mode: Mode, tickets: Tickets, messages_per_session: u64, pace: Loop) -> Case {
    let mode_name = match mode {
        Mode::Plain => "plain",
        Mode::Starttls => "starttls",
        Mode::Tls => "tls",
    };
    let name = match tickets {
        Tickets::None => format!("{mode_name} · {messages_per_session}"),
        Tickets::Full => format!("{mode_name} · full · {messages_per_session}"),
        Tickets::Resumed => format!("{mode_name} · resumed · {messages_per_session}"),
        Tickets::Mixed => format!("{mode_name} · mixed · {messages_per_session}"),
    };
    let handshake_us = match tickets {
        Tickets::None => 0.0,
        Tickets::Full => 900.0,
        Tickets::Resumed => 480.0,
        Tickets::Mixed => 700.0,
    };
    let negotiation_us = if mode == Mode::Starttls { 160.0 } else { 0.0 };
    let ready_us = 180.0 + handshake_us + negotiation_us;
    let session_us = ready_us + 250.0 * messages_per_session as f64;
    let sessions_per_second = 4.0e6 / session_us;
    let messages_per_second = sessions_per_second * messages_per_session as f64;
    let seconds = 30.0;
    let sessions = (sessions_per_second * seconds) as u64;
    let messages = sessions * messages_per_session;

    let mut times = vec![
        (Stage::Greeting, 120.0),
        (Stage::Ready, ready_us),
        (Stage::Message, 250.0),
        (Stage::Session, session_us),
    ];
    if pace == Loop::Open {
        times.push((Stage::MessageDue, 310.0));
        times.push((Stage::Lateness, 8.0));
    }
    if mode == Mode::Starttls {
        times.push((Stage::Starttls, negotiation_us));
    }
    if mode != Mode::Plain {
        times.push((Stage::Handshake, handshake_us));
    }
    let latency_us = times
        .into_iter()
        .map(|(stage, us)| {
            let stall = if stage == Stage::MessageDue {
                40.0
            } else {
                6.0
            };
            (stage, percentiles(stage, us, stall))
        })
        .collect();
    let resumed = if tickets == Tickets::Resumed {
        sessions * 997 / 1000
    } else {
        0
    };
    let handshakes = Handshakes {
        full: if mode == Mode::Plain {
            0
        } else {
            sessions - resumed
        },
        resumed,
        offered: resumed,
    };
    let cpu_us_per_session = session_us * 0.24;
    let cpu_us = cpu_us_per_session * sessions as f64;
    Case {
        name,
        mode,
        tickets,
        messages_per_session,
        figures: Figures {
            seconds,
            sessions,
            messages,
            failed: 3,
            unsent: 0,
            octets: messages * 2048,
            sessions_per_second,
            messages_per_second,
            latency_us,
            errors: BTreeMap::from([(
                "reply 451".to_owned(),
                ErrorFigures {
                    times: 3,
                    first: "451 4.3.0 Try again later".to_owned(),
                },
            )]),
            handshakes,
            generator: GeneratorFigures {
                threads: 1,
                cpu_us: 9.0e6,
                cpu_us_per_message: Some(9.0e6 / messages as f64),
                busiest_share: 0.42,
            },
            server: Some(ServerFigures {
                cpu_us,
                cpu_us_per_message: Some(cpu_us / messages as f64),
                cpu_us_per_session: Some(cpu_us_per_session),
                cores: cpu_us / seconds / 1e6,
                memory_before: 21 << 20,
                memory_after: 23 << 20,
            }),
            timeline: timeline(messages_per_second, sessions_per_second, seconds),
            warnings: Vec::new(),
        },
        rounds: [0.98, 1.0, 1.015]
            .map(|round| RoundFigures {
                sessions_per_second: sessions_per_second * round,
                messages_per_second: messages_per_second * round,
                server_cpu_us_per_message: Some(cpu_us / messages as f64 / round),
                server_cpu_us_per_session: Some(cpu_us_per_session / round),
                session_p99_us: Some(session_us * 3.0 / round),
            })
            .to_vec(),
    }
}

/// Times around `us`, of which a few are many times as long.
fn percentiles(stage: Stage, us: f64, stall: f64) -> Percentiles {
    let mut stages = Stages::default();
    for n in 0..20_000_u32 {
        let rest = 1.0 - f64::from(n) / 20_000.0;
        let nines = (1.0 / rest).log10();
        let tail = 1.0 + stall * (nines / 4.0).powi(5);
        let time = us * (0.7 + 0.35 * nines) * tail;
        stages.record(stage, Duration::from_secs_f64(time / 1e6));
    }
    stages.figures().remove(&stage).unwrap()
}

fn timeline(messages: f64, sessions: f64, seconds: f64) -> Vec<Moment> {
    let points = (1..=300).map(f64::from);
    points
        .map(|n| {
            let until_seconds = n / 300.0 * seconds;
            let stall = if (20.0..20.4).contains(&until_seconds) {
                0.3
            } else {
                1.0
            };
            let rate = stall * (1.0 + 0.03 * (n * 1.7).sin() + 0.02 * (n * 0.61).sin());
            Moment {
                until_seconds,
                messages_per_second: messages * rate,
                sessions_per_second: sessions * rate,
                slowest_us: 2000.0 / stall * (1.2 + (n * 2.3).sin()),
            }
        })
        .collect()
}
