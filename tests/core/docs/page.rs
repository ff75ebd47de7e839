//! Pages in Markdown, as far as the tests of the documentation read them: headings, fenced blocks, code spans, links.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) sections: Vec<Section>,
    /// All text outside of fenced blocks.
    pub(crate) prose: String,
}

/// A heading with the blocks below it, up to the next heading.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

/// A fenced block, without the indentation of a list item.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// A command of a console block and its documented output.
pub(crate) struct DocumentedCommand {
    pub(crate) line: String,
    pub(crate) output: String,
}

impl Page {
    /// Every document of the repository that users and contributors read.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
        let in_folder = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let mut pages: Vec<PathBuf> = entries.filter(is_page).collect();
            pages.sort();
            pages
        };
        let mut paths = in_folder(root);
        paths.extend(in_folder(&root.join("docs")));
        paths.extend(["captures", "dashboards"].map(|name| root.join(name).join("README.md")));
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// `name` is relative to the repository's root.
    pub(crate) fn open(name: &str) -> Self {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut page = Self { path: path.to_owned(), sections: Vec::new(), prose: String::new() };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                let indentation = line.len() - line.trim_start().len();
                let text: String = lines
                    .by_ref()
                    .take_while(|line| !line.trim_start().starts_with("```"))
                    .map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default()))
                    .collect();
                let block = Block { language: language.to_owned(), text };
                page.sections.last_mut().expect("a heading first").blocks.push(block);
                continue;
            }
            if let Some(title) =
                line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
            {
                page.sections.push(Section { title: title.to_owned(), blocks: Vec::new() });
            }
            page.prose.push_str(line);
            page.prose.push('\n');
        }
        page
    }

    pub(crate) fn section(&self, title: &str) -> &Section {
        let found = self.sections.iter().find(|section| section.title == title);
        found.unwrap_or_else(|| panic!("{}: no section {title:?}", self.name()))
    }

    /// Relative to the repository's root.
    pub(crate) fn name(&self) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.path.strip_prefix(root).unwrap().display().to_string()
    }

    pub(crate) fn blocks(&self, language: &str) -> impl Iterator<Item = &Block> {
        let blocks = self.sections.iter().flat_map(|section| &section.blocks);
        blocks.filter(move |block| block.language == language)
    }

    /// Code spans of the prose, which may be wrapped over two lines.
    pub(crate) fn code_spans(&self) -> Vec<String> {
        let paragraphs = self.prose.split("\n\n").flat_map(|paragraph| {
            let spans = paragraph.split('`').skip(1).step_by(2);
            spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        paragraphs.collect()
    }

    /// Link targets.
    pub(crate) fn links(&self) -> Vec<&str> {
        let ends = self.prose.match_indices("](").map(|(at, _)| self.prose.split_at(at));
        let links = ends.filter_map(|(before, after)| {
            let is_code = before.lines().last().unwrap_or_default().matches('`').count() % 2 == 1;
            let (target, _) = after[2..].split_once(')').unwrap();
            (!is_code && !target.contains("://")).then_some(target)
        });
        links.collect()
    }

    /// The anchors of the headings, as GitHub makes them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let anchor = |section: &Section| {
            let kept = section.title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
                _ => None,
            });
            kept.collect()
        };
        self.sections.iter().map(anchor).collect()
    }
}

impl Section {
    pub(crate) fn commands(&self) -> Vec<DocumentedCommand> {
        self.blocks.iter().flat_map(Block::commands).collect()
    }
}

impl Block {
    pub(crate) fn commands(&self) -> Vec<DocumentedCommand> {
        let mut commands: Vec<DocumentedCommand> = Vec::new();
        for line in self.text.lines().filter(|_| self.language == "console") {
            if let Some(line) = line.strip_prefix("$ ") {
                let line = line.to_owned();
                commands.push(DocumentedCommand { line, output: String::new() });
            } else {
                let command = commands.last_mut().expect("a block begins with a command");
                command.output.push_str(line);
                command.output.push('\n');
            }
        }
        commands
    }
}
