package dev.sekisho.examples.chaya;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** A tea house on the road: it shows what there is, and takes orders. */
@SpringBootApplication
public class Chaya {
    public static void main(String[] arguments) {
        SpringApplication.run(Chaya.class, arguments);
    }
}
