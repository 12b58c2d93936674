//! Literals that a value starts or ends with: walked byte by byte from that end, until it differs.

/// A set of literals, each with what is to be done on a match.
#[derive(Debug)]
pub struct Trie<T> {
    nodes: Vec<TrieNode<T>>,
    bytes: Vec<u8>,
    targets: Vec<u32>,
}

#[derive(Debug)]
struct TrieNode<T> {
    first_edge: u32,
    edges: u32,
    actions: Box<[T]>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), bytes: Vec::new(), targets: Vec::new() }
    }
}

impl<T: Copy> Trie<T> {
    /// From literals and their actions; `reversed` when they are walked from the end.
    pub fn new(mut literals: Vec<(Vec<u8>, T)>, reversed: bool) -> Self {
        if reversed {
            literals.iter_mut().for_each(|(literal, _)| literal.reverse());
        }
        literals.sort_by(|one, two| one.0.cmp(&two.0));
        let mut trie = Self::default();
        if !literals.is_empty() {
            trie.node(&literals, 0);
        }
        trie
    }

    /// The node of literals that agree up to `depth`, which are sorted.
    fn node(&mut self, literals: &[(Vec<u8>, T)], depth: usize) -> u32 {
        let ends = literals.iter().take_while(|(literal, _)| literal.len() == depth).count();
        let (here, longer) = literals.split_at(ends);
        let index = self.nodes.len();
        let actions = here.iter().map(|(_, action)| *action).collect();
        let groups: Vec<_> = longer.chunk_by(|one, two| one.0[depth] == two.0[depth]).collect();
        let first_edge = self.bytes.len();
        self.nodes.push(TrieNode { first_edge: narrow(first_edge), edges: narrow(groups.len()), actions });
        self.bytes.extend(groups.iter().map(|group| group[0].0[depth]));
        self.targets.resize(self.bytes.len(), 0);
        for (edge, group) in groups.into_iter().enumerate() {
            self.targets[first_edge + edge] = self.node(group, depth + 1);
        }
        narrow(index)
    }

    /// Whether there is no literal.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Calls `found` with every action whose literal the bytes begin with.
    pub fn walk(&self, bytes: impl Iterator<Item = u8>, mut found: impl FnMut(T)) {
        let Some(mut node) = self.nodes.first() else { return };
        for byte in bytes {
            let edges = node.first_edge as usize..(node.first_edge + node.edges) as usize;
            let Some(edge) = self.bytes[edges.clone()].iter().position(|edge| *edge == byte) else { return };
            node = &self.nodes[self.targets[edges.start + edge] as usize];
            node.actions.iter().for_each(|action| found(*action));
        }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 bytes of literals")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_on_the_way_is_found() {
        let literals = ["ab", "abc", "abd", "b", "ab"];
        let literals =
            literals.iter().enumerate().map(|(index, text)| (text.as_bytes().to_vec(), index)).collect();
        let trie = Trie::new(literals, false);
        let mut found = Vec::new();
        trie.walk("abce".bytes(), |index| found.push(index));
        assert_eq!(found, [0, 4, 1]);
        let trie = Trie::new(vec![(b".exe".to_vec(), 1), (b"cmd.exe".to_vec(), 2), (b"x".to_vec(), 3)], true);
        let mut found = Vec::new();
        trie.walk("a\\cmd.exe".bytes().rev(), |index| found.push(index));
        assert_eq!(found, [1, 2]);
    }
}
