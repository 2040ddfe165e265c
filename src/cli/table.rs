//! Tables as operators and their scripts know them: the title stands in the border, cells may have several
//! lines, and then a rule stands between all rows.

use std::fmt::Write;

/// A table of text.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Stands in the first border.
    pub(super) title: Option<String>,
    /// Heading, and whether the column is aligned to the right.
    pub(super) columns: Vec<(String, bool)>,
    /// Cells; a row shorter than the columns ends with empty ones.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// The whole table with a final newline.
    pub(super) fn render(&self) -> String {
        let widths = self.widths();
        let rule = rule(&widths);
        let headings: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let tall = self.rows.iter().flatten().any(|cell| cell.contains('\n'));
        let mut text = self.top(&rule);
        text.push('\n');
        self.line(&mut text, &widths, &headings);
        let _ = writeln!(text, "{rule}");
        for row in &self.rows {
            self.row(&mut text, &widths, row);
            if tall {
                let _ = writeln!(text, "{rule}");
            }
        }
        if !tall || self.rows.is_empty() {
            let _ = writeln!(text, "{rule}");
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let column = |(at, (name, _)): (usize, &(String, bool))| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(at))
                .flat_map(|cell| cell.lines());
            cells.map(width).max().unwrap_or(0).max(width(name))
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    /// The first border; a title too long for the table is cut.
    fn top(&self, rule: &str) -> String {
        let Some(title) = &self.title else {
            return rule.to_owned();
        };
        let room = width(rule).saturating_sub(2);
        let title: String = format!(" {title} ").chars().take(room).collect();
        let rest: String = rule.chars().skip(1 + width(&title)).collect();
        format!("+{title}{rest}")
    }

    fn row(&self, text: &mut String, widths: &[usize], row: &[String]) {
        let height = row
            .iter()
            .map(|cell| cell.lines().count())
            .max()
            .unwrap_or(0)
            .max(1);
        for at in 0..height {
            let parts: Vec<&str> = row
                .iter()
                .map(|cell| cell.lines().nth(at).unwrap_or_default())
                .collect();
            self.line(text, widths, &parts);
        }
    }

    fn line(&self, text: &mut String, widths: &[usize], parts: &[&str]) {
        for (at, (wide, (_, right))) in widths.iter().zip(&self.columns).enumerate() {
            let part = parts.get(at).copied().unwrap_or_default();
            let pad = " ".repeat(wide.saturating_sub(width(part)));
            let _ = if *right {
                write!(text, "| {pad}{part} ")
            } else {
                write!(text, "| {part}{pad} ")
            };
        }
        text.push_str("|\n");
    }
}

fn rule(widths: &[usize]) -> String {
    widths
        .iter()
        .fold(String::new(), |line, wide| line + "+" + &"-".repeat(wide + 2))
        + "+"
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_longer_than_the_table_is_cut() {
        let table = Table {
            title: Some("Cluster: a-rather-long-name".to_owned()),
            columns: vec![("TL".to_owned(), true)],
            rows: vec![vec!["7".to_owned()]],
        };
        assert_eq!(table.render(), "+ Clu+\n| TL |\n+----+\n|  7 |\n+----+\n");
    }

    #[test]
    fn several_lines_bring_rules() {
        let table = Table {
            title: None,
            columns: vec![("A".to_owned(), false), ("B".to_owned(), true)],
            rows: vec![vec!["x\nyy".to_owned(), "1".to_owned()], vec!["z".to_owned()]],
        };
        let expected = "\
+----+---+
| A  | B |
+----+---+
| x  | 1 |
| yy |   |
+----+---+
| z  |   |
+----+---+
";
        assert_eq!(table.render(), expected);
    }
}
