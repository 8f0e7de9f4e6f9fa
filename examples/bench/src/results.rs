//! All that the comparison found: a series for each workload, program and figure.
//!
//! Medians of these are what is printed, judged and drawn. A round that went
//! wrong on somebody else's server leaves a note instead of a figure.

use crate::measure::Spread;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// CPU time of the server for each message or login, in us.
    Cpu,
    /// Messages or logins a second.
    Rate,
    /// The way of a message, or, where it is answered, from sending it to the answer, in us: the median,
    /// and what 99 and 99.9 % do not exceed.
    Median,
    P99,
    P999,
    /// How late the generator was, in us: what 99 % do not exceed.
    Late,
    /// Memory for each user, in bytes: logged in, after a message each, when all have gone.
    Idle,
    Used,
    Gone,
}

/// What one round of one workload found on one program.
#[derive(Default)]
pub struct Sample {
    figures: [Option<f64>; FIGURES],
    pub note: Option<String>,
}

impl Sample {
    pub fn put(&mut self, figure: Figure, number: f64) {
        self.figures[figure as usize] = Some(number);
    }

    /// A round that has nothing to tell but this.
    pub fn failed(note: String) -> Sample {
        Sample { note: Some(note), ..Sample::default() }
    }
}

/// Everything, by the numbers of workloads and programs.
pub struct Results {
    samples: Vec<Vec<Vec<Sample>>>,
}

impl Results {
    /// Room for so many.
    pub fn new(workloads: usize, programs: usize) -> Results {
        let row = || (0..programs).map(|_| Vec::new()).collect();
        Results { samples: (0..workloads).map(|_| row()).collect() }
    }

    pub fn add(&mut self, workload: usize, program: usize, sample: Sample) {
        self.samples[workload][program].push(sample);
    }

    /// Whether there is anything, be it a note.
    pub fn has(&self, workload: usize, program: usize) -> bool {
        !self.samples[workload][program].is_empty()
    }

    /// The series of one figure in short, if there is one.
    pub fn spread(&self, workload: usize, program: usize, figure: Figure) -> Option<Spread> {
        let samples = self.samples[workload][program].iter();
        let figures: Vec<f64> = samples.filter_map(|sample| sample.figures[figure as usize]).collect();
        (!figures.is_empty()).then(|| Spread::of(figures))
    }

    pub fn median(&self, workload: usize, program: usize, figure: Figure) -> Option<f64> {
        self.spread(workload, program, figure).map(|spread| spread.median)
    }

    /// What went wrong, each thing once.
    pub fn notes(&self, workload: usize, program: usize) -> String {
        let samples = &self.samples[workload][program];
        let mut notes: Vec<(&str, usize)> = vec![];
        for note in samples.iter().filter_map(|sample| sample.note.as_deref()) {
            match notes.iter_mut().find(|(known, _)| *known == note) {
                Some((_, times)) => *times += 1,
                None => notes.push((note, 1)),
            }
        }
        let rounds = samples.len();
        let note = |(note, times): &(&str, usize)| format!("{note} ({times} of {rounds} rounds)");
        notes.iter().map(note).collect::<Vec<_>>().join("; ")
    }
}

const FIGURES: usize = Figure::Gone as usize + 1;
