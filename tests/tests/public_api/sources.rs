//! The modules of the workspace's libraries as their sources have them, and where a name leads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::{Attribute, Ident, Item, ItemMod, UseTree, Visibility};

/// A module: the crate's name first.
pub(crate) type ModulePath = Vec<String>;

/// Names that lead to a name are followed so far.
const HOPS_MAX: usize = 8;

/// The libraries that have been read.
pub(crate) struct Sources {
    crates: PathBuf,
    modules: BTreeMap<ModulePath, Vec<Item>>,
    /// Where the modules are that are not inside of another one's file.
    files: BTreeMap<ModulePath, PathBuf>,
}

/// Where something is declared.
pub(crate) struct Place {
    pub(crate) module: ModulePath,
    pub(crate) name: String,
}

/// One name that a `use` brings in.
pub(crate) struct Import {
    /// What it is called here.
    pub(crate) name: String,
    /// The path that it comes from.
    pub(crate) path: Vec<String>,
}

impl Sources {
    pub(crate) fn new(crates: &Path) -> Self {
        Self {
            crates: crates.to_owned(),
            modules: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// Reads a library, unless it has been read; says whether there is one.
    pub(crate) fn read(&mut self, library: &str) -> Result<bool> {
        let root = vec![library.to_owned()];
        if self.modules.contains_key(&root) {
            return Ok(true);
        }
        let directory = self.crates.join(library).join("src");
        let file = directory.join("lib.rs");
        if !file.exists() {
            return Ok(false);
        }
        self.read_file(&root, &file, &directory)?;
        Ok(true)
    }

    fn read_file(&mut self, path: &ModulePath, file: &Path, directory: &Path) -> Result<()> {
        let text = fs::read_to_string(file)?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.files.insert(path.clone(), file.to_owned());
        self.take(path, parsed.items, directory)
    }

    /// `directory` is where the files of the modules in it are.
    fn take(&mut self, path: &ModulePath, items: Vec<Item>, directory: &Path) -> Result<()> {
        let mut kept = Vec::new();
        for item in items {
            if let Item::Mod(module) = &item {
                if !is_for_tests(&module.attrs) {
                    self.read_module(path, module, directory)?;
                    kept.push(item);
                }
                continue;
            }
            kept.push(item);
        }
        self.modules.insert(path.clone(), kept);
        Ok(())
    }

    fn read_module(&mut self, path: &ModulePath, module: &ItemMod, directory: &Path) -> Result<()> {
        let name = module.ident.to_string();
        let inner = directory.join(&name);
        let path = [&path[..], &[name]].concat();
        match &module.content {
            Some((_brace, items)) => self.take(&path, items.clone(), &inner),
            None => self.read_file(&path, &inner.with_extension("rs"), &inner),
        }
    }

    pub(crate) fn items(&self, module: &ModulePath) -> &[Item] {
        self.modules.get(module).map_or(&[], Vec::as_slice)
    }

    /// The file that a module is in, seen from where the crates are.
    pub(crate) fn file(&self, module: &[String]) -> &Path {
        let mut inner_first = (1..=module.len()).rev();
        let file = inner_first.find_map(|len| self.files.get(&module[..len]));
        let file = file.map_or(Path::new(""), PathBuf::as_path);
        file.strip_prefix(&self.crates).unwrap_or(file)
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = (&ModulePath, &[Item])> {
        self.modules
            .iter()
            .map(|(path, items)| (path, items.as_slice()))
    }

    /// Where what a path names in a module is declared; `None` if that is in somebody else's library.
    pub(crate) fn declared(
        &mut self,
        module: &ModulePath,
        path: &[String],
    ) -> Result<Option<Place>> {
        let (mut module, mut path) = (module.clone(), path.to_vec());
        for _hop in 0..HOPS_MAX {
            let Some((name, way)) = path.split_last() else {
                return Ok(None);
            };
            let Some(owner) = self.follow(&module, way)? else {
                return Ok(None);
            };
            let name = name.clone();
            let items = self.items(&owner);
            if items
                .iter()
                .any(|item| name_of(item).is_some_and(|it| *it == name))
            {
                return Ok(Some(Place {
                    module: owner,
                    name,
                }));
            }
            let found = imports(items).into_iter().find(|it| it.name == name);
            let Some(import) = found else {
                return Ok(None);
            };
            (module, path) = (owner, import.path);
        }
        Ok(None)
    }

    /// The module that a path names; the path of none is the module itself.
    fn follow(&mut self, from: &ModulePath, way: &[String]) -> Result<Option<ModulePath>> {
        let mut here = from.clone();
        for (at, step) in way.iter().enumerate() {
            let inner = [&here[..], std::slice::from_ref(step)].concat();
            match step.as_str() {
                "self" => {}
                "crate" => here.truncate(1),
                "super" => {
                    here.pop();
                }
                _ if self.modules.contains_key(&inner) => here = inner,
                library if at == 0 && self.read(library)? => here = vec![library.to_owned()],
                _elsewhere => return Ok(None),
            }
        }
        Ok(Some(here))
    }
}

/// What is only there for tests.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_cfg = |attribute: &&Attribute| attribute.path().is_ident("cfg");
    let mut conditions = attributes.iter().filter(is_cfg);
    conditions.any(|attribute| {
        let condition = quote::quote!(#attribute).to_string();
        condition.contains("test")
    })
}

/// What an item declares.
pub(crate) fn name_of(item: &Item) -> Option<&Ident> {
    Some(match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        _ => return None,
    })
}

/// All names that a module brings in, for itself or for others.
fn imports(items: &[Item]) -> Vec<Import> {
    let uses = items.iter().filter_map(|item| match item {
        Item::Use(it) => Some(&it.tree),
        _ => None,
    });
    uses.flat_map(leaves).collect()
}

/// The names that a module brings in for others, of which `is_public` says which they are.
pub(crate) fn exports(items: &[Item]) -> Vec<Import> {
    let uses = items.iter().filter_map(|item| match item {
        Item::Use(it) if matches!(it.vis, Visibility::Public(_)) => Some(&it.tree),
        _ => None,
    });
    uses.flat_map(leaves).collect()
}

fn leaves(tree: &UseTree) -> Vec<Import> {
    let mut found = Vec::new();
    let mut waiting = vec![(Vec::new(), tree)];
    while let Some((way, tree)) = waiting.pop() {
        let with = |name: &Ident| [&way[..], &[name.to_string()]].concat();
        match tree {
            UseTree::Path(it) => waiting.push((with(&it.ident), &it.tree)),
            UseTree::Group(it) => {
                waiting.extend(it.items.iter().map(|tree| (way.clone(), tree)));
            }
            UseTree::Name(it) => found.push(Import {
                name: it.ident.to_string(),
                path: with(&it.ident),
            }),
            UseTree::Rename(it) => found.push(Import {
                name: it.rename.to_string(),
                path: with(&it.ident),
            }),
            UseTree::Glob(_) => {}
        }
    }
    found
}
