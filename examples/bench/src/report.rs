//! How figures are printed: plain text tables, and verdicts on bounds.
//!
//! A verdict is only printed. Machines are noisy, so a figure that misses its
//! bound does not make the bench fail; a wrong answer of the server does.

/// Prints a table: the first column and those without a title to the left, the others to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    let width = |column: usize| {
        let lines = std::iter::once(&head).chain(rows);
        lines.map(|line| line[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let untitled = head.iter().all(String::is_empty);
    for line in std::iter::once(&head).chain(rows).skip(usize::from(untitled)) {
        let mut text = String::new();
        for ((cell, title), &width) in line.iter().zip(&head).zip(&widths) {
            text += "  ";
            text += &if title.is_empty() { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        }
        println!("{}", text.trim_end());
    }
}

/// `ok` or `OVER`, with the bound that was met or missed.
pub fn verdict(figure: f64, bound: f64, bound_text: &str) -> String {
    let word = if figure <= bound { "ok" } else { "OVER" };
    format!("{word}, bound {bound_text}")
}

/// The same for a figure that should not be lower.
pub fn verdict_least(figure: f64, bound: f64, bound_text: &str) -> String {
    let word = if figure >= bound { "ok" } else { "OVER" };
    format!("{word}, at least {bound_text}")
}

/// Bytes in megabytes of a million bytes each, as the bounds are given.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// A whole number with commas between thousands.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = if number <= -0.5 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
