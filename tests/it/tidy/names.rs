//! The names that the sources define.

use syn::Item;
use syn::visit::{self, Visit};

/// The name of an item, of any kind but `use` and `impl`.
pub fn item_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Type,
    Constant,
    /// Functions, modules, fields and variants.
    Other,
}

/// A name and what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub kind: Kind,
    pub name: String,
}

/// Everything that a file defines and others can name: items, methods, fields, variants.
pub fn definitions(file: &syn::File) -> Vec<Definition> {
    let mut collector = Definitions::default();
    collector.visit_file(file);
    collector.found
}

#[derive(Default)]
struct Definitions {
    found: Vec<Definition>,
}

impl Definitions {
    fn push(&mut self, kind: Kind, name: &impl ToString) {
        let name = name.to_string();
        self.found.push(Definition { kind, name });
    }
}

impl<'a> Visit<'a> for Definitions {
    fn visit_item(&mut self, item: &'a Item) {
        let kind = match item {
            Item::Struct(_) | Item::Enum(_) | Item::Trait(_) | Item::Type(_) => Kind::Type,
            Item::Const(_) | Item::Static(_) => Kind::Constant,
            _ => Kind::Other,
        };
        if let Some(name) = item_name(item) {
            self.push(kind, &name);
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.push(Kind::Other, &function.sig.ident);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_impl_item_const(&mut self, constant: &'a syn::ImplItemConst) {
        self.push(Kind::Constant, &constant.ident);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        self.push(Kind::Other, &function.sig.ident);
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_variant(&mut self, variant: &'a syn::Variant) {
        self.push(Kind::Other, &variant.ident);
        visit::visit_variant(self, variant);
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        if let Some(name) = &field.ident {
            self.push(Kind::Other, name);
        }
        visit::visit_field(self, field);
    }
}

/// The words of a name in lower case: `MAX_REDIRECTS` and `MaxRedirects` are `max`, `redirects`.
pub fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for c in name.chars() {
        let begins = c != '_' && (previous == '_' || c.is_uppercase() && !previous.is_uppercase());
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
        previous = c;
    }
    words
}

/// The types that have `impl` blocks in a file.
pub fn implemented(file: &syn::File) -> Vec<Vec<String>> {
    let mut collector = Implemented::default();
    collector.visit_file(file);
    collector.found
}

#[derive(Default)]
struct Implemented {
    found: Vec<Vec<String>>,
}

impl<'a> Visit<'a> for Implemented {
    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty {
            let segments = path.path.segments.iter().map(|s| s.ident.to_string());
            self.found.push(segments.collect());
        }
        visit::visit_item_impl(self, item);
    }
}

/// Whether a file contains `async` or `.await`.
pub fn has_async(file: &syn::File) -> bool {
    let mut search = Async::default();
    search.visit_file(file);
    search.found
}

#[derive(Default)]
struct Async {
    found: bool,
}

impl<'a> Visit<'a> for Async {
    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        self.found |= signature.asyncness.is_some();
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, _: &'a syn::ExprAsync) {
        self.found = true;
    }

    fn visit_expr_await(&mut self, _: &'a syn::ExprAwait) {
        self.found = true;
    }

    fn visit_expr_closure(&mut self, closure: &'a syn::ExprClosure) {
        self.found |= closure.asyncness.is_some();
        visit::visit_expr_closure(self, closure);
    }
}
