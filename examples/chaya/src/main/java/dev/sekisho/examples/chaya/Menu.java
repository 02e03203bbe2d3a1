package dev.sekisho.examples.chaya;

import java.util.List;
import java.util.Optional;
import org.springframework.stereotype.Component;

/** What the house offers. Prices are in mon, the copper coin. */
@Component
public class Menu {
    /** One thing to eat or drink. */
    public record Item(String id, String name, int mon) {}

    private final List<Item> items = List.of(
            new Item("sencha", "Sencha", 6),
            new Item("dango", "Dango, three on a stick", 4),
            new Item("soba", "Soba", 16),
            new Item("amazake", "Amazake", 8));

    public List<Item> items() {
        return items;
    }

    public Optional<Item> find(String id) {
        return items.stream().filter(item -> item.id().equals(id)).findFirst();
    }
}
