//! What the pages of one client's request share: variables, blocks, groups of the last match.

use std::cell::RefCell;

/// How many variables pages may set, and how many blocks they may have.
const MOST: usize = 1000;

/// Shared by a page and all that it includes.
#[derive(Default)]
pub(super) struct Memory {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    variables: Vec<Named>,
    blocks: Vec<Named>,
    groups: Vec<Vec<u8>>,
}

struct Named {
    name: Vec<u8>,
    text: Vec<u8>,
}

impl Memory {
    /// The value of a variable that a page has set, or of a group of the last match.
    pub(super) fn value(&self, name: &[u8]) -> Option<Vec<u8>> {
        let inner = self.inner.borrow();
        if let [digit @ b'0'..=b'9'] = name
            && let Some(group) = inner.groups.get(usize::from(digit - b'0'))
        {
            return Some(group.clone());
        }
        let found = inner.variables.iter().find(|known| known.name == name)?;
        Some(found.text.clone())
    }

    /// Sets a variable; `name` is in lower case.
    pub(super) fn set(&self, name: &[u8], text: Vec<u8>) {
        let variables = &mut self.inner.borrow_mut().variables;
        if let Some(known) = variables.iter_mut().find(|known| known.name == name) {
            known.text = text;
        } else if variables.len() < MOST {
            variables.push(Named { name: name.to_vec(), text });
        }
    }

    /// Keeps a block. Of two with the same name the first counts, as in nginx.
    pub(super) fn add_block(&self, name: Vec<u8>, text: Vec<u8>) {
        let blocks = &mut self.inner.borrow_mut().blocks;
        if blocks.len() < MOST {
            blocks.push(Named { name, text });
        }
    }

    /// The block of that name.
    pub(super) fn block(&self, name: &[u8]) -> Option<Vec<u8>> {
        let inner = self.inner.borrow();
        let found = inner.blocks.iter().find(|block| block.name == name)?;
        Some(found.text.clone())
    }

    /// The groups of a match, the whole one first.
    pub(super) fn set_groups(&self, groups: Vec<Vec<u8>>) {
        self.inner.borrow_mut().groups = groups;
    }
}
