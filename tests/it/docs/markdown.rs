//! Reads as much of Markdown as the pages use: headings with their anchors, tables, code spans and
//! links.

use std::path::Path;

/// The directory of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub struct Page {
    /// From the root, like `docs/store.md`.
    pub path: String,
    pub text: String,
}

/// A heading and what follows it, up to the next heading of any level.
pub struct Section {
    pub title: String,
    /// The heading of level 2 that it is below.
    pub parent: String,
    lines: Vec<String>,
}

impl Page {
    /// Every page: those of the root and of `docs`.
    pub fn all() -> Vec<Self> {
        let mut pages = Vec::new();
        for directory in ["", "docs"] {
            for entry in std::fs::read_dir(root().join(directory)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".md") {
                    let path = Path::new(directory).join(name);
                    pages.push(Self::read(path.to_str().unwrap()));
                }
            }
        }
        assert!(pages.len() > 10, "the pages were found");
        pages
    }

    pub fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// The lines outside of code blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }

    pub fn sections(&self) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        let mut parent = String::new();
        for line in self.prose() {
            let Some((marks, title)) = line
                .split_once("# ")
                .filter(|(marks, _)| marks.chars().all(|mark| mark == '#'))
            else {
                if let Some(section) = sections.last_mut() {
                    section.lines.push(line.to_owned());
                }
                continue;
            };
            if marks.len() < 2 {
                parent = title.to_owned();
            }
            sections.push(Section {
                title: title.to_owned(),
                parent: parent.clone(),
                lines: Vec::new(),
            });
        }
        sections
    }

    /// The rows of all tables whose first column has this title.
    pub fn rows(&self, first: &str) -> Vec<Vec<String>> {
        let sections = self.sections();
        sections
            .iter()
            .flat_map(|section| section.rows(first))
            .collect()
    }

    /// The anchors of the headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for Section { title, .. } in self.sections() {
            let slug: String = title
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let repeated = (0..)
                .map(|n| match n {
                    0 => slug.clone(),
                    n => format!("{slug}-{n}"),
                })
                .find(|anchor| !anchors.contains(anchor));
            anchors.extend(repeated);
        }
        anchors
    }

    pub fn links(&self) -> Vec<String> {
        let targets = self.prose().flat_map(|line| line.split("](").skip(1));
        targets
            .map(|rest| rest.split(')').next().unwrap().to_owned())
            .collect()
    }

    /// The path of a link's target, from the root.
    pub fn resolve(&self, target: &str) -> String {
        if target.is_empty() {
            return self.path.clone();
        }
        let (directory, _) = self.path.rsplit_once('/').unwrap_or(("", ""));
        match target.strip_prefix("../") {
            Some(target) => target.to_owned(),
            None if directory.is_empty() => target.to_owned(),
            None => format!("{directory}/{target}"),
        }
    }
}

impl Section {
    /// The rows of the tables whose first column has this title, without the titles.
    pub fn rows(&self, first: &str) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut is_within = false;
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let Some(cells) = cells(line) else {
                is_within = false;
                continue;
            };
            let is_title = lines.peek().is_some_and(|next| next.starts_with("|---"));
            if is_title {
                is_within = cells[0] == first;
            } else if is_within && !line.starts_with("|---") {
                rows.push(cells);
            }
        }
        rows
    }
}

/// The cells of a table's row; `\|` is a bar within one.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = vec![String::new()];
    let mut is_escaped = false;
    for c in row.chars() {
        if c == '|' && !is_escaped {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            cell.push(c);
        }
        is_escaped = c == '\\';
    }
    Some(cells.iter().map(|cell| cell.trim().to_owned()).collect())
}

/// The code spans of a text.
pub fn code(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}
