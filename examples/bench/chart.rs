//! x
use crate::results::Results;
use crate::server::Program;
use crate::workload::Workload;
use std::io;
use std::path::Path;
pub fn write(
    _path: &Path,
    _programs: &[&Program],
    _workloads: &[Workload],
    _results: &Results,
) -> io::Result<()> {
    Ok(())
}
